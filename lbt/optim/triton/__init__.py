"""Layer-wise rules as a few Triton kernels over all tensors of a parameter group; off unless ``fused=True``.

`plan` says where the tensors lie and keeps that between steps, `kernels` are the kernels (the only module that imports
triton; reached in a step alone), `launch` starts them. What the rules themselves are stays in lars.py and lamb.py.
"""
