"""The numeric operations of rendering and training, and the back-ends that compute them.

`torch_ops.TorchOps` is the interface: each operation in plain PyTorch, which runs anywhere, is differentiable wherever
its docstring says so, and is what every other back-end is tested against. `cpu.numba_ops.NumbaOps`,
`cuda.triton_ops.TritonOps` and `cuda.tcnn_ops.TcnnOps` override what they compute faster and inherit the rest.
`choose.choose_ops` picks one for a device; nothing outside this folder asks which one runs.
"""
