/* The planes of a 4:2:0 JPEG as they are before upsampling; grey images get the two chroma planes of grey. */
#include "decoder.h"

#include <string.h>

static int is_420(j_decompress_ptr jpeg)
{
    const jpeg_component_info *y = jpeg->comp_info, *cb = y + 1, *cr = y + 2;
    return jpeg->num_components == 3 && jpeg->jpeg_color_space == JCS_YCbCr && y->h_samp_factor == 2 &&
           y->v_samp_factor == 2 && cb->h_samp_factor * cb->v_samp_factor * cr->h_samp_factor * cr->v_samp_factor == 1;
}

void read_planes(struct decoder *decoder, const struct task *task, const struct image *image)
{
    enum { WIDEST = 4 * DCTSIZE }; /* what an MCU has at most of any component, in both directions */
    j_decompress_ptr jpeg = &decoder->jpeg;
    if (jpeg->num_components > 1 && !is_420(jpeg))
        refuse(decoder, "is not stored as 4:2:0");
    jpeg->raw_data_out = TRUE;
    jpeg->out_color_space = jpeg->jpeg_color_space;
    jpeg_start_decompress(jpeg);
    int height = task->height, width = task->width, luma_rows = jpeg->max_v_samp_factor * DCTSIZE;
    size_t stride = ((size_t)width + WIDEST - 1) / WIDEST * WIDEST;
    uint8_t *rows = scratch_of(decoder, (WIDEST + 2 * DCTSIZE) * stride);
    JSAMPROW lines[WIDEST + 2 * DCTSIZE];
    JSAMPARRAY parts[3] = {lines, lines + WIDEST, lines + WIDEST + DCTSIZE};
    for (size_t i = 0; i < WIDEST + 2 * DCTSIZE; i++)
        lines[i] = rows + i * stride;
    memset(image->out, CENTERJSAMPLE, planes_bytes(task)); /* what chroma of grey is */
    for (int y = 0; y < height; y += luma_rows) {
        jpeg_read_raw_data(jpeg, parts, (JDIMENSION)luma_rows);
        uint8_t *plane = image->out;
        for (int c = 0; c < jpeg->num_components; c++) {
            int half = c > 0, plane_height = (height + half) >> half, plane_width = (width + half) >> half;
            int begin = y >> half, end = (y + luma_rows) >> half;
            for (int i = begin; i < end && i < plane_height; i++)
                memcpy(plane + (size_t)i * (size_t)plane_width, parts[c][i - begin], (size_t)plane_width);
            plane += (size_t)plane_height * (size_t)plane_width;
        }
    }
}
