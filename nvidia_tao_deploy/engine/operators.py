"""Which ONNX operators each builder's parser knows, so that a node nobody can build is named before the build.

Sources: the operator tables of the ONNX parser's releases 8.5 and 8.6, "Supported ONNX Operators" of TensorRT 10 and
11, and builds of the ONNX backend tests with TensorRT-RTX 1.7. Knowing an operator is no promise for every form of it.
"""

from __future__ import annotations

from nvidia_tao_deploy.engine.backend import Backend, known_plugins, version_tuple


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


TENSORRT_8_5 = _names(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
    Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
    Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GridSample GRU HardSigmoid HardSwish Identity If InstanceNormalization IsNaN
    LRN LSTM LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN
    RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign Round Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size
    Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Trilu Unsqueeze Upsample Where Xor
    """
)
TENSORRT_8_6 = TENSORRT_8_5 | {"GroupNormalization", "LayerNormalization", "IsInf"}
# Operators of the standard that TensorRT 10 and 11 do not build.
_NEVER = _names(
    """
    Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress ConcatFromSequence
    ConvInteger Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix Multinomial
    NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement QLinearConv QLinearMatMul RegexFullMatch
    SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap
    SoftmaxCrossEntropyLoss SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer Unique
    """
)
_NOT_RTX = _NEVER | {"AffineGrid", "DFT", "DeformConv", "NonMaxSuppression", "NonZero"}


def known_operators(backend: Backend, opset: int) -> frozenset[str]:
    """Standard operators, and the registered plugins by name, that ``backend`` can parse in a graph of ``opset``."""
    from nvidia_tao_deploy.graph.inspect import standard_ops

    if backend.name == "tensorrt_rtx":
        return standard_ops(opset) - _NOT_RTX
    plugins = known_plugins(backend)
    if not backend.features.layer_normalization:
        return TENSORRT_8_5 | plugins
    if version_tuple(backend.version) < (10, 0):
        return TENSORRT_8_6 | plugins
    return (standard_ops(opset) - _NEVER) | plugins
