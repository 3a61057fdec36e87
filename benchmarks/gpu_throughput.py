"""Samples per second on a GPU in bfloat16, and the share of its measured matrix-multiply peak that they use.

    python benchmarks/gpu_throughput.py

ViLT-B/32 (texts of 40 tokens, images of 384) and CLIP ViT-B/16 (texts of 77, images of 224) as their configs have it,
with random weights and MMP's prompts of 16 on six layers, as `eval` runs them, and with `--compile`. Inputs are already
on the device, so only the model is timed. The peak is that of a square bfloat16 product of 8192, over half a second
before and after, since a GPU is slower when it is warm; a sample's operations are those of its matrix products.
"""

from __future__ import annotations

import sys

import measuring
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, ViltConfig, ViltModel

from mmrobust.models.backbones.clip import ClipBackbone, ClipProcessor
from mmrobust.models.backbones.vilt import ViltBackbone, ViltProcessor
from mmrobust.models.classifier import Classifier, compile_model
from mmrobust.models.prediction.held_weights import held_in_bfloat16
from mmrobust.runtime.devices import resolve_device

BATCHES = (32, 128, 512)
REPEATS, PEAK_REPEATS = 20, 400
SIDE = 8192


def models() -> dict[str, tuple[Classifier, dict[str, torch.Tensor]]]:
    """Name → classifier and the inputs of one sample."""
    vilt = ViltBackbone(ViltModel(ViltConfig()), ViltProcessor(None, None, 40), "ViLT-B/32")
    clip = CLIPModel(CLIPConfig(text_config={}, vision_config={"patch_size": 16}))
    clip_backbone = ClipBackbone(clip, ClipProcessor(None, None, 77), "CLIP ViT-B/16")
    ids = torch.randint(5, 1000, (1, 77))
    ids[0, -1] = clip.config.text_config.eos_token_id
    text = {"input_ids": torch.randint(5, 1000, (1, 40))}
    image = {"pixel_values": torch.randn(1, 3, 384, 384)}
    return {
        "ViLT-B/32": (measuring.classifier_on(vilt, "mmp"), text | image),
        "CLIP ViT-B/16": (
            measuring.classifier_on(clip_backbone, "mmp"),
            {"input_ids": ids, "pixel_values": torch.randn(1, 3, 224, 224)},
        ),
    }


def sample_operations(classifier: Classifier, one: dict[str, torch.Tensor]) -> int:
    """Floating-point operations of one sample's matrix products, those of the attention included."""
    # The counter knows the products of the plain attention, and nothing of a CPU's fused kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        classifier(one)
    return int(counter.get_total_flops())


def milliseconds(work: object, repeats: int) -> float:
    """Average time that the device takes for ``work``."""
    assert callable(work)
    for _ in range(3):
        work()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / repeats


def matmul_rate(square: torch.Tensor) -> float:
    """Operations a second of its product with itself."""
    return 2 * len(square) ** 3 / milliseconds(lambda: square @ square, PEAK_REPEATS) * 1e3


@torch.inference_mode()
def main() -> None:
    """Measure and report."""
    asked = measuring.arguments(__doc__, samples=0)
    if not torch.cuda.is_available():
        print("no GPU here: this benchmark measures one; nothing was measured")
        sys.exit(0)
    device = resolve_device("cuda")  # sets what commands set
    square = torch.randn(SIDE, SIDE, device=device, dtype=torch.bfloat16)
    peaks, timed = [matmul_rate(square)], []
    for name, (classifier, one) in models().items():
        operations = sample_operations(classifier, one)
        classifier.to(device).dtype = "bfloat16"
        for way in ("", ", compiled"):
            if way:
                compile_model(classifier)
            for size in BATCHES:
                batch = {key: value.cuda().expand(size, *value.shape[1:]).contiguous() for key, value in one.items()}
                try:
                    with held_in_bfloat16(classifier):  # as an evaluation does
                        rate = size / milliseconds(lambda run=classifier, batch=batch: run(batch), REPEATS) * 1e3
                except RuntimeError as error:  # without a compiler, as an evaluation with --compile
                    if not way:
                        raise
                    print(f"{name} is not compiled here: {error}")
                    break
                timed.append((name + way, size, rate, rate * operations))
    peaks.append(matmul_rate(square))
    peak = sum(peaks) / 2
    rows = [(name, size, rate, 100 * used / peak) for name, size, rate, used in timed]
    columns = ("model", "batch", "samples/s", "% of the matmul peak")
    measuring.report(f"bfloat16, peak {peak / 1e12:.0f} TFLOP/s", columns, rows, asked.json)


if __name__ == "__main__":
    main()
