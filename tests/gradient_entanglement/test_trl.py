"""Losses and weights against trl 0.11.0, whose trainers implement eight of the eleven objectives.

Runs where that version is installed (`pip install trl==0.11.0 transformers==4.45.2`) and is skipped elsewhere. Nothing
is downloaded: a trainer is made without its constructor and given the few settings that its loss reads. trl has no
R-DPO, no DPOP and no RRHF.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lib.gradient_entanglement import CharTransformer, MarginObjective, margin_objective, sequence_logps

VERSION = "0.11.0"

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of trl's own imports
    trl: Any = pytest.importorskip("trl")
    if trl.__version__ != VERSION:
        pytest.skip(f"want trl {VERSION}, whose loss methods are called here", allow_module_level=True)
    TRAINERS = {"dpo": trl.DPOTrainer, "cpo": trl.CPOTrainer, "orpo": trl.ORPOTrainer, "kto": trl.KTOTrainer}

BETA, LAM, GAMMA, WEIGHT_W, WEIGHT_L = 0.3, 0.7, 0.4, 1.3, 0.6
Loss = Callable[[dict[str, Tensor]], Tensor]


def trainer(kind: str, **settings: Any) -> Any:
    """A trainer of trl that knows nothing but what its loss reads."""
    made = object.__new__(TRAINERS[kind])
    host = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x)
    usual = {"accelerator": host, "beta": BETA, "label_smoothing": 0.0, "reference_free": False}
    forward = {"is_encoder_decoder": False, "label_pad_token_id": -100, "padding_value": 0, "aux_loss_enabled": False}
    made.__dict__.update(usual | forward | settings)
    return made


def random_pairs(count: int = 40) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    u, v, ref_w, ref_l = -0.5 - 12 * torch.rand(4, count, dtype=torch.float64, generator=generator)
    len_w, len_l = torch.randint(1, 9, (2, count), generator=generator).double()
    return {"u": u, "v": v, "ref_w": ref_w, "ref_l": ref_l, "len_w": len_w, "len_l": len_l}


def dpo_family(loss_type: str) -> Loss:
    def loss(p: dict[str, Tensor]) -> Tensor:
        divergence = trl.trainer.dpo_config.FDivergenceType.REVERSE_KL.value
        made = trainer("dpo", loss_type=loss_type, f_divergence_type=divergence, f_divergence_params=None)
        value: Tensor = made.dpo_loss(p["u"], p["v"], p["ref_w"], p["ref_l"])[0]
        return value

    return loss


def cpo_family(loss_type: str) -> Loss:
    def loss(p: dict[str, Tensor]) -> Tensor:
        made = trainer("cpo", loss_type=loss_type, simpo_gamma=GAMMA)
        means = loss_type == "simpo"
        value: Tensor = made.cpo_loss(*((p["u"] / p["len_w"], p["v"] / p["len_l"]) if means else (p["u"], p["v"])))[0]
        return value

    return loss


def orpo(p: dict[str, Tensor]) -> Tensor:
    mean_w, mean_l = p["u"] / p["len_w"], p["v"] / p["len_l"]
    value: Tensor = -mean_w - trainer("orpo", beta=LAM).odds_ratio_loss(mean_w, mean_l)[0]
    return value


def kto(p: dict[str, Tensor]) -> Tensor:
    made = trainer("kto", loss_type="kto", calculate_KL=True, desirable_weight=WEIGHT_W, undesirable_weight=WEIGHT_L)
    shift = torch.full((1,), 0.2, dtype=torch.float64)
    found: Tensor = made.kto_loss(p["u"], p["v"], shift, p["ref_w"], p["ref_l"], torch.zeros_like(shift))[0]
    value_w, value_l = found.chunk(2)
    return value_w + value_l


def ours(name: str, p: dict[str, Tensor], **options: Any) -> MarginObjective:
    known = {key: p[key] for key in ("ref_w", "ref_l", "len_w", "len_l")}
    return margin_objective(name, p["u"], p["v"], **known, **({"beta": BETA} | options))


# Name here, trl's loss, our options, and the factor of our loss: trl's hinge is one minus the temperature times the
# margin, which is the temperature times a hinge that ends at one over the temperature.
CASES: dict[str, tuple[str, Loss, dict[str, Any], float]] = {
    "dpo": ("dpo", dpo_family("sigmoid"), {}, 1.0),
    "ipo": ("ipo", dpo_family("ipo"), {}, 1.0),
    "sppo": ("sppo", dpo_family("sppo_hard"), {}, 1.0),
    "cpo": ("cpo", cpo_family("sigmoid"), {"lam": 0.0}, 1.0),
    "simpo": ("simpo", cpo_family("simpo"), {"gamma": GAMMA}, 1.0),
    "slic": ("slic", cpo_family("hinge"), {"lam": 0.0, "delta": 1 / BETA}, BETA),
    "orpo": ("orpo", orpo, {"lam": LAM}, 1.0),
    "kto": ("kto", kto, {"z_ref": 0.2, "lam_w": WEIGHT_W, "lam_l": WEIGHT_L}, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_losses_and_weights_are_those_of_trl(case: str) -> None:
    name, theirs, options, factor = CASES[case]
    p = random_pairs()
    p |= {key: p[key].requires_grad_() for key in ("u", "v")}
    want = theirs(p)
    found = ours(name, p, **options)
    torch.testing.assert_close(factor * found.loss, want, rtol=1e-12, atol=1e-12)
    slope_w, slope_l = torch.autograd.grad(want.sum(), (p["u"], p["v"]))
    torch.testing.assert_close(factor * found.d_w, -slope_w, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(factor * found.d_l, slope_l, rtol=1e-11, atol=1e-12)


class AsTrlCalls(nn.Module):
    """A model behind the call that trl makes; a causal model needs no mask where rows are padded on the right."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        """Logits, as an attribute."""
        assert attention_mask.shape == tokens.shape
        assert not use_cache
        return SimpleNamespace(logits=self.model(tokens))


PROMPT, LEN_W, LEN_L = 1, 5, 8  # a longer prompt would enter the likelihood term of trl's ORPO, and not ours


def batch_of_one() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(9, (PROMPT + LEN_W + LEN_L,), generator=generator)
    prompt, win, lose = tokens.split([PROMPT, LEN_W, LEN_L])
    batch: dict[str, Tensor] = {}
    for name, response in (("chosen", win), ("rejected", lose)):
        row = torch.cat([prompt, response]).unsqueeze(0)
        labels = row.clone()
        labels[:, :PROMPT] = -100
        batch |= {f"{name}_input_ids": row, f"{name}_labels": labels, f"{name}_attention_mask": torch.ones_like(row)}
    return batch


# trl's likelihood term is the mean over the response's tokens, ours the sum.
WHOLE: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], float]] = {
    "cpo": ("cpo", {"loss_type": "sigmoid", "cpo_alpha": LAM}, "cpo", {"lam": LAM / LEN_W}, 1.0),
    "slic": (
        "cpo",
        {"loss_type": "hinge", "cpo_alpha": LAM},
        "slic",
        {"lam": LAM / LEN_W / BETA, "delta": 1 / BETA},
        BETA,
    ),
    "simpo": ("cpo", {"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": GAMMA}, "simpo", {"gamma": GAMMA}, 1.0),
    "orpo": ("orpo", {"beta": LAM}, "orpo", {"lam": LAM}, 1.0),
}


@pytest.mark.parametrize("case", WHOLE)
def test_the_gradient_of_a_training_loss_of_trl_is_the_weighted_difference_of_both_gradients(case: str) -> None:
    kind, settings, name, options, factor = WHOLE[case]
    model = CharTransformer(9, generator=torch.Generator().manual_seed(2), context=12, width=8, inner=10).double()
    parameters, batch = list(model.parameters()), batch_of_one()
    want, _ = trainer(kind, **settings).get_batch_loss_metrics(AsTrlCalls(model), batch)

    def logp(rows: Tensor) -> Tensor:
        return sequence_logps(model(rows[:, :-1])[:, PROMPT - 1 :], rows[:, PROMPT:]).squeeze(0)

    u, v = logp(batch["chosen_input_ids"]), logp(batch["rejected_input_ids"])
    found = margin_objective(name, u.detach(), v.detach(), len_w=LEN_W, len_l=LEN_L, **({"beta": BETA} | options))
    torch.testing.assert_close(factor * found.loss, want.detach(), rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(want, parameters)
    g_w, g_l = torch.autograd.grad(u, parameters), torch.autograd.grad(v, parameters)
    for whole, up, down in zip(gradients, g_w, g_l, strict=True):
        torch.testing.assert_close(whole, factor * (found.d_l * down - found.d_w * up), rtol=1e-9, atol=1e-11)
