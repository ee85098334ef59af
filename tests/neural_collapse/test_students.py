"""Many students trained at once against each of them trained alone, in plain torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lib.neural_collapse import LossMix, Students, train_students

RUNS, ROWS, PIXELS, CLASSES = 2, 50, 5, 3
SIZES = (PIXELS, 7, 4)
MIX = LossMix(*torch.tensor([[1.0, 0, 1, 1, 0.5], [0, 1, 2, 0, 0.25], [0, 0, 0, 1, 1], [0, 0, 0, 0, 2]]))
COUNT = 5


def data(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    pixels = torch.randn(RUNS, ROWS, PIXELS, generator=source, dtype=dtype)
    labels = torch.randint(CLASSES, (RUNS, ROWS), generator=source)
    return pixels, labels, 3 * torch.randn(RUNS, COUNT, ROWS, CLASSES, generator=source, dtype=dtype)


def model(seed: int = 1) -> Students:
    source = torch.Generator().manual_seed(seed)
    return Students(RUNS, COUNT, SIZES, CLASSES, generator=source, auxiliary=6).double()


def coins(logits: Tensor, teacher: Tensor, heat: float) -> Tensor:
    """Binary divergence of every class, mean over the rows."""
    p, q = torch.sigmoid(teacher / heat), torch.sigmoid(logits / heat)
    p_not, q_not = torch.sigmoid(-teacher / heat), torch.sigmoid(-logits / heat)
    return heat**2 * (p * (p / q).log() + p_not * (p_not / q_not).log()).sum(-1).mean()


class Alone(nn.Module):
    """One student with the weights of one of many."""

    def __init__(self, many: Students, run: int, student: int) -> None:
        super().__init__()
        self.parts = nn.ParameterDict(
            {name.replace(".", "_"): value.detach()[run, student].clone() for name, value in many.named_parameters()}
        )

    def layer(self, name: str, x: Tensor) -> Tensor:
        """One affine map."""
        y: Tensor = x @ self.parts[f"{name}_weight"] + self.parts[f"{name}_bias"]
        return y

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the main, the linear and the nonlinear head."""
        for number in (0, 2):
            x = self.layer(f"backbone_{number}", x).relu()
        inner = self.layer("nonlinear_0", x).relu()
        return self.layer("main", x), self.layer("linear", x), self.layer("nonlinear_2", inner)


def trained_alone(
    student: Alone, number: int, run: int, orders: list[Tensor], epochs: int, batch: int, lr: float, heat: float
) -> None:
    pixels, labels, teacher = data()
    velocity = {name: torch.zeros_like(p) for name, p in student.parts.items()}
    for epoch, order in enumerate(orders):
        rate = lr * 0.1 ** sum(epoch >= round(part * epochs) for part in (0.6, 0.8))
        for start in range(0, ROWS - batch + 1, batch):
            pick = order[run, start : start + batch]
            main, linear, nonlinear = student.outputs(pixels[run, pick])
            goal = teacher[run, number, pick]
            loss = MIX.ce[number] * cross_entropy(main, labels[run, pick])
            for weight, logits in ((MIX.main, main), (MIX.linear, linear), (MIX.nonlinear, nonlinear)):
                loss = loss + weight[number] * coins(logits, goal, heat)
            slopes = torch.autograd.grad(loss, list(student.parts.values()), allow_unused=True)
            with torch.no_grad():
                for (name, p), slope in zip(student.parts.items(), slopes, strict=True):
                    pull = (0 if slope is None else slope) + 5e-4 * p
                    velocity[name] = 0.9 * velocity[name] + pull
                    p -= rate * velocity[name]


def test_each_student_learns_as_if_it_were_alone() -> None:
    many, epochs, batch = model(), 5, 16
    alone = {(r, s): Alone(many, r, s) for r in range(RUNS) for s in range(COUNT)}
    pixels, labels, teacher = data()
    kwargs: dict[str, Any] = {"temperature": 3.0, "epochs": epochs, "batch": batch, "lr": 0.1}
    train_students(many, pixels, labels, MIX, teacher, generator=torch.Generator().manual_seed(9), **kwargs)
    source = torch.Generator().manual_seed(9)
    orders = [torch.rand(RUNS, ROWS, generator=source).argsort(-1) for _ in range(epochs)]
    for (run, number), student in alone.items():
        trained_alone(student, number, run, orders, epochs, batch, 0.1, 3.0)
        for name, value in many.named_parameters():
            want = student.parts[name.replace(".", "_")]
            torch.testing.assert_close(value[run, number], want, rtol=1e-9, atol=1e-11)


def test_students_of_a_run_start_alike_and_those_of_another_do_not() -> None:
    many = model()
    for value in many.parameters():
        assert (value == value[:, :1]).all()
        assert (value[0] != value[1]).any()
    reach = PIXELS**-0.5
    first = dict(many.named_parameters())["backbone.0.weight"]
    assert first.abs().max() < reach
    assert first.std().item() == pytest.approx(reach / 3**0.5, rel=0.2)
    assert [tuple(p.shape[2:]) for p in many.parameters()] == [
        *((5, 7), (1, 7), (7, 4), (1, 4)),
        *((4, 3), (1, 3), (4, 3), (1, 3)),
        *((4, 6), (1, 6), (6, 3), (1, 3)),
    ]


def test_watch_sees_the_start_and_every_so_many_epochs() -> None:
    pixels, labels, teacher = data()
    many = model()
    start = many.state_dict()["main.weight"].clone()
    seen = train_students(
        many,
        pixels,
        labels,
        MIX,
        teacher,
        generator=torch.Generator().manual_seed(0),
        epochs=5,
        batch=25,
        watch=lambda m: m.state_dict()["main.weight"].clone(),
        every=2,
    )
    assert len(seen) == 3
    assert torch.equal(seen[0], start)
    assert not torch.equal(seen[1], seen[2])


def test_without_auxiliary_heads_and_without_a_teacher() -> None:
    pixels, labels, _ = data()
    one, none = torch.ones(COUNT), torch.zeros(COUNT)
    small = Students(RUNS, COUNT, SIZES, CLASSES, generator=torch.Generator().manual_seed(1)).double()
    full = model()
    small.load_state_dict({k: v for k, v in full.state_dict().items() if k in small.state_dict()})
    for students in (small, full):
        source = torch.Generator().manual_seed(3)
        train_students(students, pixels, labels, LossMix(one, none, none, none), generator=source, epochs=2, batch=10)
    torch.testing.assert_close(small.state_dict()["main.weight"], full.state_dict()["main.weight"])


def test_they_train_on_the_device_of_the_pixels(device: str) -> None:
    pixels, labels, teacher = (x.to(device) for x in data(dtype=torch.float32))
    many = Students(RUNS, COUNT, SIZES, CLASSES, generator=torch.Generator().manual_seed(1), auxiliary=6).to(device)
    mix = LossMix(*(x.to(device) for x in vars(MIX).values()))
    train_students(many, pixels, labels, mix, teacher, generator=torch.Generator().manual_seed(0), epochs=2, batch=25)
    h = many.features(pixels.unsqueeze(1))
    assert (h.device.type, h.shape) == (device, (RUNS, COUNT, ROWS, 4))
    assert many.logits(h).shape == (RUNS, COUNT, ROWS, CLASSES)
    assert many.logits(h).isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs and batch: got 0 and 10, want"),
        ({"batch": 0}, "epochs and batch: got 2 and 0, want"),
        ({"batch": 51}, "epochs and batch: got 2 and 51, want .*50"),
        ({"teacher": None}, "teacher: got None, want"),
        ({"model": Students(RUNS, COUNT, SIZES, CLASSES, generator=torch.Generator())}, "mix: got a weight on"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    pixels, labels, teacher = data(dtype=torch.float32)
    fine: dict[str, Any] = {
        "model": model().float(),
        "pixels": pixels,
        "labels": labels,
        "mix": MIX,
        "teacher": teacher,
        "generator": torch.Generator(),
        "epochs": 2,
        "batch": 10,
    }
    with pytest.raises(ValueError, match=message):
        train_students(**(fine | change))
