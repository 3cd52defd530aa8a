"""What is a split, a class or neither, in folders and in tars: read where it is certain, else refused in one line."""

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from alexnet.tools.convert.sources import TRAIN_TAR, find_layout, open_source
from tests.unit.tools.source_layouts import parents, refused, sketched, table, write

FISH, DOG, TENCH = "n01443537", "n02084071", "n01440764"
FLAT = f"{{{TENCH}_0_{TENCH},{FISH}_1_{FISH}}}.JPEG"

READ = """
{Train,Val}/* | Train | Val | validation images are read from Val
{TRAIN,VAL}/* | TRAIN | VAL
{training,validation}/* | training | validation
{training_set,validation_set}/* | training_set | validation_set
{TrainSet,ValidSet}/* | TrainSet | ValidSet
{trainset,valset}/* | trainset | valset
{train_images,val_images}/* | train_images | val_images
{images-train,images-val}/* | images-train | images-val
{train2017,val2017}/* | train2017 | val2017
{seg_train/seg_train,seg_val/seg_val}/* | seg_train | seg_val
{train,test}/* | train | test
{imagenette2-train,imagenette2-val}/* | imagenette2-train | imagenette2-val
{train/ILSVRC2012_img_train,val/ILSVRC2012_img_val}/* | ILSVRC2012_img_train | ILSVRC2012_img_val
{train,Valid}/* | train | Valid
{train,validation}/* | train | validation
train.X1/cats/ train.X2/dogs/ val.X/* x.json | train.X1 train.X2 | val.X | images are read from train.X1, train.X2
{train,val,test}/* | train | val | not read: test
train/* test/1.jpg | train | | not read: test
{train,train_images,training,val}/* | train | val | not read: train_images, training
{train,car}/ | . | | taken for classes: train
{bus,car,train}/ | .
{bullet_train,steam·train,test_tube,valve}/ | .
{valid,invalid}/ | .
{cats·(1),lions}/ | .
{mask,no·mask}/ | .
{images,drawings}/ | .
{train_station,testes,trainers}/ | .
{n01440764,validation·stamp}/ | .
{straße,dots.in.it,white·space,n00000001,Ünïcödé·猫}/ | .
any.tar:* | any
imagenette2.tar:imagenette2/* | imagenette2
data.tar:a/b/* | b
any.tar:./* | any
any.tar:a/README any.tar:a/* | a
any.tar:docs/README any.tar:data/* | data
part1.tar:cats/ part2.tar:dogs/ | part1 part2
zoo_part_1.tar:cats/ zoo_part_2.tar:zoo/dogs/ | zoo zoo_part_1
train.tar:train/* | train
{cats,dogs}.tar:+ | .
mine.tar:{cats,dogs}.tar:+ | mine
mine.tar:fall/{cats,dogs}.tar:+ | fall
{train,val}.tar:* | train | val | 1 tar has the validation images: val.tar
Train_Set.tar:* Validation_Set.tar:./val/* | Train_Set | val
{zoo_train,zoo-val}.tar:* | zoo_train | zoo-val
zoo.tar:zoo/{train,val}/* | train | val
a.tar:{train,valid}/* | train | valid
zoo.tar:{train,val}.tar:* | train | val
{train,val}/{cats,dogs}.tar:+ | train | val
zoo.tar:{train,val}/{cats,dogs}.tar:+ | train | val
train.tar:{cats,dogs}.tar:+ val.tar:* | train | val
train_0.tar:cats/ train_1.tar:dogs/ val_0.tar:cats/ | train_0 train_1 | val_0
{train,test}.tar:* | train | test
all.tar:{train,val,test}/* | train | val | 1 thing is not read: all.tar (test images)
train.tar:* test.tar:1.jpg | train | | 1 thing is not read: test.tar (1 test images)
src.tar:main.c * | .
"""


@pytest.mark.parametrize(("sketch", "train", "val", "note"), table(READ, 4))
def test_what_is_sure_is_read_and_splits_are_never_classes(
    tmp_path: Path, sketch: str, train: str, val: str, note: str
) -> None:
    files = sketched(sketch)
    written = Counter(re.findall(r"'(?:[^']*/)?([^'/]*)\+[^'+]*\+\d\.png'", str(files)))
    wanted = [{parent.strip("."): written[parent.strip(".")] for parent in split.split()} for split in (train, val)]
    assert list(parents(write(tmp_path, files))) == wanted
    assert note in " ".join(open_source(tmp_path).notes)


FOLDERS = r"""
train_a/* train_b/* | train_a, train_b may each be the split that is meant
{train_images,training,val}/* | train_images, training may each be .*--train train_images --val DIR
train/* val/1.jpg | val: its images have no labels; sort them into class f
{train,test1}/cat.0.jpg | not taken for classes: .* sort them into train/CLASS
{Train,Val,Test}/1.jpg | not taken for classes: Test,
{trainA,testA,trainB,testB}/1.jpg | not taken for cl
{cats,dogs}/{train,test}/ | cats: holds test, train; put splits
* cats/dogs/1.jpg | are called like classes beside it.* --train
* test/* | not taken for classes: test.* --train
* data/{train,val}/* | data: holds train, val;
* test/1.jpg | not taken for classes: test.* --train
* cats/val/1.png | cats: holds val; put splits above classes
* cats/Validation/1.png | cats: holds Validation; put
c{0,1,2,3}{0,1,2,3,4,5,6,7,8,9}/ c17/{c00,c01,c02}/ | c17: its folders \(c00, c01, c02\) are called like classes beside
birds/* meta/{classes.txt,train.json} | of its folders only birds holds images, in folders of its own: give .*/birds;
photos/* | only photos holds images, in folders of its own: give .*/photos;
{images,annotations}/1.jpg | not taken for classes: annotations, images, which name none
{train,valid}/images/1.jpg labels/train/1.txt | not taken for classes: images
{cats,dogs}/{front,side}/ | if they are splits: .* to take each folder of .* --train \.
{amazon,dslr,webcam}/images/* | sub-folders of the same names \(cats, dogs\)
Training/* Validation/* Validation/birds/ | Validation: birds is none of the 2 classes
* cats·(1)/ | looks like a copy of the class beside it
* cats·(copy)/ | looks like a copy of the class beside it
* cats·-·Copy/ | looks like a copy of the class beside it
* cats·copy·2/ | looks like a copy of the class beside it
 | no known layout; found nothing
"""
TARS = rf"""
images.tar:1.jpg | '1\.jpg' has no label: it lies in no class folder
images.tar:images/1.jpg | has no label
zoo.tar:zoo/1.jpg | one class only, 'zoo'
train.tar:1.jpg val.tar:2.jpg | train\.tar: '1\.jpg' has no label
part1.tar:1.jpg part2.tar:2.jpg | part1\.tar: '1\.jpg' has no label
train.tar:{TENCH}.tar:1.jpg val.tar:ILSVRC2012_val_00000001.JPEG | call it .*_val.tar, that for training {TRAIN_TAR}
train.tar:{TENCH}_1.JPEG train.tar:2.jpg | '2\.jpg' has no label
a.tar:train/* a.tar:val/1.jpg | 'val/1\.jpg' has no label
{TENCH}.tar:{FISH}/1.jpg | holds a folder {FISH}, .* says class {TENCH}
cat.tar:dog/1.jpg dog.tar:1.jpg | of other names than its own
pets.tar:* farm.tar:{{cow,pig}}/ | such as 'cats'; if what is in the tars says the classes, call them train_1\.tar
a.tar:README a.tar:* b.tar:cow/ | of other names than its own
a.tar:{FLAT} b.tar:{FLAT} | says class a, and .* in it n0144
{TENCH}.tar:1_{FISH}.JPEG {FISH}.tar:1.jpg | its name says class {TENCH}, and '1_{FISH}\.JPEG' in it {FISH}
a.tar:{TENCH}_1.JPEG b.tar:{TENCH}_2.JPEG | says class b, and .* in it {TENCH}
a.tar:pets/cat/ a.tar:farm/cow/ | several levels of folders
a.tar:1.jpg a.tar:* | several levels of folders
a.tar:{DOG}/{TENCH}/ a.tar:{FISH}/ | names two classes
{{train,val}}.tar:* extra.tar:dogs/ | extra\.tar is neither training nor validation
train.tar:{TENCH}/ cats.tar:1.jpg | its own name says class train; if what is in the tars says the classes
train.tar:val/* val.tar:cats/ | its name says train, and a folder in it val
a.tar:{{train,val}}/{{val,test}}/cat/ | train/test is in two splits \(test and train\)|train/.* is in two splits
all.tar:{{learn,check}}/{{x,y}}.tar:1.jpg | is in check and in learn, which may be splits
val.tar:* | no training images
train.tar:* val.tar:cow/ | cow, which is none
{{train,train·(1)}}.tar:{{cat,dog}}/1.jpg | hold the same image, '1.jpg'
train_{{0,1}}.tar:{FLAT} | train_1\.tar: '{TENCH}_0_{TENCH}\.JPEG' is in .*train_0\.tar, too
{{train,val}}.tar:{FLAT} | val\.tar: .* is in .*train\.tar, too: an image must not
{{cat,dog,test}}.tar:1.jpg | not taken for a class: 'test'
zoo.tar:{{cat,dog,test}}/ | not taken for a class: 'test'
zoo.tar:{{images,masks}}/ | not taken for a class: 'images'
{{images,masks}}.tar:1.jpg | not taken for a class
old.tar:* * | in none of them
train_0.tar:* train_1.tar.gz | train_1\.tar\.gz: is gzipped .* gunzip it first: gunzip .*; there are 1 tars beside it
{TENCH}.tar:1.jpg {FISH}.tar.gz | is gzipped
train_0.tar:{FLAT} train_2.tar.part | train_2.tar.part: looks like a tar under another name, or one not do
train_0.tar:{FLAT} train_2.TAR | train_2.TAR: looks like a tar under another name, or one not do
train_0.tar:{FLAT} train_2.tar.crdownload | train_2.tar.crdownload: looks like a tar under another name
data.tar:* data.tar:bird.zip | holds 'bird\.zip' beside images, which would be missed
whole.tar:n1.tar:1.jpg whole.tar:README | holds tars and README, which is
000000.tar:0.jpg 000000.tar:0.cls | sample '0': its \.cls cannot be read
"""


@pytest.mark.parametrize(("sketch", "said"), [*table(FOLDERS), *table(TARS)])
def test_what_may_be_wrong_is_refused_in_one_line(tmp_path: Path, sketch: str, said: str) -> None:
    line = refused(write(tmp_path, sketched(sketch)), said)
    if "to take each folder" in line:
        command = shlex.split(line.rpartition(" for a class: ")[2])
        assert command[:3] == ["alexnet-prep", "shard", str(tmp_path)]
        options = list(zip(command[3::2], command[4::2], strict=True))
        train, val = (tuple(name for option, name in options if option == wanted) for wanted in ("--train", "--val"))
        if "copy" not in said:
            assert len(open_source(tmp_path, layout=find_layout(tmp_path, train, val)).members["train"])
