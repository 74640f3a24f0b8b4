"""softmax, log_softmax and logsumexp of other libraries, as calls to time.

Each entry of PEERS takes the name of the function, a NumPy array and the class axis. It prepares
the arrays of its library and compiles the function, and returns a call without arguments; None
where the library lacks the function or the dtype. `as_numpy` converts the result of the call.
"""

import os
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

Call = Callable[[], Any]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
THREADS = len(os.sched_getaffinity(0))


def tensor(z: Any) -> Any:
    """A tensor on the memory of an array."""
    import torch

    if z.dtype == BFLOAT16:
        return torch.from_numpy(z.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(z)


def as_numpy(x: Any) -> Any:
    """The result of a call as a NumPy array."""
    if type(x).__name__ == "Interpreter":
        return x.get_tensor(1)
    if type(x).__module__ == "torch":
        return x.float().numpy() if str(x.dtype) == "torch.bfloat16" else x.numpy()
    return np.asarray(x)


def copy(name: str, z: Any, axis: int) -> Call | None:
    source = tensor(z)
    target = source.clone()
    return lambda: target.copy_(source)


def logitlab_(name: str, z: Any, axis: int) -> Call | None:
    import logitlab

    function = getattr(logitlab, name)
    return lambda: function(z, axis)


def logitlab_out(name: str, z: Any, axis: int) -> Call | None:
    import logitlab

    if name == "logsumexp":
        return None
    function, out = getattr(logitlab, name), np.empty_like(z)
    return lambda: function(z, axis, out=out)


def torch_(name: str, z: Any, axis: int) -> Call | None:
    import torch

    function, x = getattr(torch, name), tensor(z)
    return lambda: function(x, axis)


def torch_out(name: str, z: Any, axis: int) -> Call | None:
    import torch

    function, x = getattr(torch, name), tensor(z)
    if name == "logsumexp":
        return None
    out = torch.empty_like(x)
    return lambda: function(x, axis, out=out)


def scipy_(name: str, z: Any, axis: int) -> Call | None:
    import scipy.special

    if z.dtype == BFLOAT16:
        return None
    function = getattr(scipy.special, name)
    return lambda: function(z, axis=axis)


def jax_jit(name: str, z: Any, axis: int) -> Call | None:
    import jax

    function = jax.scipy.special.logsumexp if name == "logsumexp" else getattr(jax.nn, name)
    compiled = jax.jit(lambda x: function(x, axis=axis))
    x = jax.numpy.asarray(z)
    if x.dtype != z.dtype:
        return None
    return lambda: compiled(x).block_until_ready()


def onnx_session(operator: str, dtype: Any, axis: int = -1, threads: int = 0) -> Any:
    """An onnxruntime session of one operator; 0 threads is its default number."""
    import onnx
    import onnxruntime

    tensor_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    x, y = (onnx.helper.make_tensor_value_info(n, tensor_type, None) for n in "xy")
    node = onnx.helper.make_node(operator, ["x"], ["y"], axis=axis)
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def onnxruntime_(name: str, z: Any, axis: int) -> Call | None:
    import onnxruntime

    operators = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
    if name not in operators or z.dtype not in (np.float32, np.float64):
        return None
    session = onnx_session(operators[name], z.dtype, axis, THREADS)
    out = np.empty_like(z)
    binding = session.io_binding()
    binding.bind_cpu_input("x", z)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(out)
    binding.bind_ortvalue_output("y", value)

    def call() -> Any:
        session.run_with_iobinding(binding)
        return out

    return call


def xnnpack_(name: str, z: Any, axis: int) -> Call | None:
    operators = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}
    if name not in operators or z.dtype != np.float32 or axis % z.ndim != z.ndim - 1:
        return None
    from ai_edge_litert.interpreter import Interpreter

    model = _tflite_model(operators[name], z.shape)
    interpreter = Interpreter(model_content=model, num_threads=THREADS)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, z)

    def call() -> Any:
        interpreter.invoke()
        return interpreter

    return call


def _tflite_model(operator: str, shape: tuple[int, ...]) -> bytes:
    """A model of one operator on float32 for LiteRT, whose CPU kernels are XNNPACK."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str) -> Any:
        t = schema.TensorT()
        t.name, t.shape, t.type, t.buffer = name, list(shape), schema.TensorType.FLOAT32, 0
        return t

    code = schema.OperatorCodeT()
    upper = "LOG_SOFTMAX" if operator == "LogSoftmax" else "SOFTMAX"
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, upper)
    code.version = 1
    node = schema.OperatorT()
    node.opcodeIndex, node.inputs, node.outputs = 0, [0], [1]
    node.builtinOptionsType = getattr(schema.BuiltinOptions, f"{operator}Options")
    node.builtinOptions = getattr(schema, f"{operator}OptionsT")()
    if operator == "Softmax":
        node.builtinOptions.beta = 1.0
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [tensor("x"), tensor("y")], [node]
    graph.inputs, graph.outputs = [0], [1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


PEERS = {
    "copy": copy,
    "logitlab": logitlab_,
    "logitlab out=": logitlab_out,
    "torch": torch_,
    "torch out=": torch_out,
    "SciPy": scipy_,
    "JAX jit": jax_jit,
    "onnxruntime": onnxruntime_,
    "XNNPACK": xnnpack_,
}
