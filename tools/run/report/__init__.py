"""What a run looks like, on one page that opens from the disk: `report.html` in its folder.

    records      read the run folder: what was measured, and at which step
    curves       loss, error, speed and waiting as charts
    filters      the first layer's kernels as a picture (the paper's figure 3)
    guesses      validation images and what the network takes them for (its figure 4)
    era          what the run is worth in GTX 580
    page, write  put it together; never let a run fail for it

Everything is read from the run folder, so a run that was stopped, or ran in many processes, has its page, too.
"""
