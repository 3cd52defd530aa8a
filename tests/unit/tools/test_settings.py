"""Settings: a recipe, changed key by key, wrong ones refused before any work."""

import json

import pytest

from alexnet.shards.errors import InputError
from alexnet.tools.run.settings import RunSettings, load_recipe, with_overrides
from alexnet.tools.settings import with_settings


def test_settings_are_converted_to_their_type() -> None:
    s = with_overrides(
        RunSettings(),
        (
            "optim.lr=2e-2",
            "train.batch_images=7",
            "train.train_accuracy=TRUE",
            "augment.lighting=off",
            "optim.lr = 0.5",
            "schedule.drop_epochs=3, 5",
            "net.arch=lenet-5",
        ),
    )
    assert (s.optim.lr, s.train.batch_images, s.train.train_accuracy, s.augment.lighting) == (0.5, 7, True, "off")
    assert (s.schedule.drop_epochs, s.net.arch) == ((3, 5), "lenet-5")
    assert with_overrides(s, ("schedule.drop_epochs=",)).schedule.drop_epochs == ()
    assert json.loads(json.dumps(s.as_json())) == s.as_json()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optim.lr", "must read key=value"),
        ("optim.rl=1", r"optim\.rl: no such setting; did you mean optim\.lr\?"),
        ("lr=1", r"lr: no such setting; did you mean optim\.lr\?"),
        ("train=1", "train: no such setting"),
        ("optim.lr=fast", r"optim\.lr=fast: must be a number"),
        ("train.epochs=1.5", r"train\.epochs=1\.5: must be a whole number"),
        ("train.epochs=0", r"train\.epochs=0: must be at least 1"),
        ("train.train_accuracy=2", "must be true or false"),
        ("init.kind=zeros", r"init\.kind=zeros: must be one of paper, he"),
        ("init.kind=papr", r"init\.kind=papr: must be one of .*; did you mean paper\?"),
        ("augment.lighting=measurd", r"augment\.lighting=measurd: .*; did you mean measured\?"),
        ("net.arch=lenet", r"net\.arch=lenet: must be one of .*; did you mean lenet-5\?"),
        ("net.pooling=overlapping", r"net\.pooling=overlapping: must be one of drawn, disjoint"),
        ("net.channels=-1", r"net\.channels=-1: must be at least 1"),
        ("optim.lr=nan", r"optim\.lr=nan: must be a number"),
        ("optim.lr=inf", r"optim\.lr=inf: must be a number"),
        ("optim.bias_lr_scale=0", r"optim\.bias_lr_scale=0\.0: must be above 0"),
        ("optim.bias_decay=yes", r"optim\.bias_decay=yes: must be true or false"),
        ("schedule.drop_epochs=5,3", r"schedule\.drop_epochs=5,3: must be numbers from 1 on"),
        ("schedule.drop_epochs=0", r"schedule\.drop_epochs=0: must be numbers from 1 on"),
        ("schedule.drop_epochs=x", r"schedule\.drop_epochs=x: must be whole numbers with commas"),
        ("train.views=5", r"train\.views=5: must be one of 1, 10"),
        ("schedule.warmup_steps=-1", r"schedule\.warmup_steps=-1: must not be negative"),
        ("schedule.kind=cosin", r"schedule\.kind=cosin: .*; did you mean cosine\?"),
        ("stream.threads=-1", r"threads=-1: must be at least 0"),
        ("net.classes=5", "cannot be set"),
        ("optim.lr=-1", r"optim\.lr=-1\.0: must be"),
        ("net.dropout=1", r"net\.dropout=1\.0: must be"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        with_overrides(load_recipe("small"), (assignment,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.lr", "fast", r"optim\.lr=fast: must be a number"),
        ("optim.lr", True, r"optim\.lr=True: must be a number"),
        ("optim.lr", [0.1], r"optim\.lr=\[0\.1\]: must be a number"),
        ("train.epochs", True, r"train\.epochs=True: must be a whole number"),
        ("train.epochs", 2.0, r"train\.epochs=2\.0: must be a whole number"),
        ("net.arch", 5, r"net\.arch=5: must be text"),
        ("net.pooling", 5, r"net\.pooling=5: must be one of drawn, disjoint"),
        ("schedule.drop_epochs", 5, r"schedule\.drop_epochs=5: must be whole numbers with commas"),
        ("schedule.drop_epochs", [1.5], r"schedule\.drop_epochs=\[1\.5\]: must be whole numbers"),
        ("optim", {"lr": 1}, "optim: no such setting"),
    ],
)
def test_a_value_of_another_type_is_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        with_settings(RunSettings(), [(key, value)])
    assert "\n" not in str(error.value)
