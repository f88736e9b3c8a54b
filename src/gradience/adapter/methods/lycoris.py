"""LoHa and LoKr (FedPara, LyCORIS): Hadamard and Kronecker products of thin factors.

Neither is multiplied out where that can be avoided. A Hadamard product of L1 @ R1 and L2 @ R2 is
one product of rank r1 * r2: the row-wise Khatri-Rao product of L1 and L2 times the column-wise one
of R1 and R2. A Tucker core t (r, r, *kernel) of a convolution contracts with its input factor, and
leaves two thin factors again.

References
----------
Hyeon-Woo et al., FedPara, ICLR 2022; Yeh et al., LyCORIS, ICLR 2024; peft/tuners/{loha,lokr}.
"""

import math

import numpy as np

from gradience.adapter.delta import Delta, Dense, Kronecker, Matrix, Product
from gradience.adapter.methods.matrices import Float64, computed, float64, product_of, stored
from gradience.errors import AdapterError
from gradience.tensors.stored import StoredTensor

Pair = tuple[Matrix, Matrix]


def loha_delta(
    module: str,
    first: tuple[StoredTensor, StoredTensor],
    second: tuple[StoredTensor, StoredTensor],
    cores: tuple[StoredTensor, StoredTensor] | None = None,
) -> Delta:
    """(w1_a @ w1_b) * (w2_a @ w2_b), elementwise.

    Parameters
    ----------
    module : str
        For messages.
    first, second : pair of StoredTensor
        (out, r) and (r, in * kernel); with cores (r, out) and (r, in).
    cores : pair of StoredTensor, optional
        `hada_t1` and `hada_t2`, (r, r, *kernel).

    Returns
    -------
    Product or Dense
        (out, in * kernel); dense when r1 * r2 is no smaller than a side.

    Raises
    ------
    AdapterError
        If the shapes do not fit together.
    """
    t1, t2 = cores or (None, None)
    (left1, right1), (left2, right2) = _pair(module, *first, t1), _pair(module, *second, t2)
    (rows, r1), columns, r2 = left1.shape, right1.shape[1], left2.shape[1]
    if left2.shape[0] != rows or right2.shape[1] != columns:
        raise _unfit(module, (*first, *second))
    if r1 * r2 >= min(rows, columns):

        def hadamard() -> Float64:
            return (_f64(left1) @ _f64(right1)) * (_f64(left2) @ _f64(right2))

        return Dense(matrix=computed((rows, columns), hadamard))

    def left() -> Float64:
        return (_f64(left1)[:, :, None] * _f64(left2)[:, None, :]).reshape(rows, r1 * r2)

    def right() -> Float64:
        return (_f64(right1)[:, None, :] * _f64(right2)[None, :, :]).reshape(r1 * r2, columns)

    return Product(left=computed((rows, r1 * r2), left), right=computed((r1 * r2, columns), right))


def lokr_delta(
    module: str,
    w1: StoredTensor | tuple[StoredTensor, StoredTensor],
    w2: StoredTensor | tuple[StoredTensor, StoredTensor],
    core: StoredTensor | None = None,
) -> Delta:
    """kron(w1, w2), each whole or as two factors.

    Parameters
    ----------
    module : str
        For messages.
    w1 : (l, m), or (l, r) and (r, m)
    w2 : (k, n, *kernel), or (k, r) and (r, n * kernel); with a core (r, k) and (r, n)
    core : (r, r, *kernel), optional
        `lokr_t2`.

    Returns
    -------
    Kronecker or Dense
        (l * k, m * n * kernel): the kernel is the fast index, as in a flattened conv weight.

    Raises
    ------
    AdapterError
        If the shapes do not fit together.
    """
    if isinstance(w1, StoredTensor) and isinstance(w2, StoredTensor) and len(w2.shape) == 3:
        return _conv1d_delta(module, w1, w2)
    left = Dense(matrix=stored(w1)) if isinstance(w1, StoredTensor) else _factored(module, *w1)
    right = (
        Dense(matrix=stored(w2)) if isinstance(w2, StoredTensor) else _factored(module, *w2, core)
    )
    return Kronecker(left=left, right=right)


def _conv1d_delta(module: str, w1: StoredTensor, w2: StoredTensor) -> Dense:
    """What PEFT applies for a whole w2 of a Conv1d.

    PEFT lifts w1 to the dimensions of w2 for Conv2d only (peft.tuners.lokr.layer.make_kron), so
    torch.kron pads w1 in front and the result is reshaped: not a Kronecker product of matrices,
    and still what the model was trained with.
    """
    if len(w1.shape) != 2:
        raise _unfit(module, (w1, w2))
    (out1, in1), (out2, in2, width) = w1.shape, w2.shape

    shape = (out1 * out2, in1 * in2 * width)

    def padded() -> Float64:
        return np.asarray(np.kron(float64(w1), float64(w2)), dtype=np.float64).reshape(shape)

    return Dense(matrix=computed(shape, padded))


def _factored(
    module: str, a: StoredTensor, b: StoredTensor, core: StoredTensor | None = None
) -> Product | Dense:
    return product_of(*_pair(module, a, b, core))


def _pair(module: str, a: StoredTensor, b: StoredTensor, core: StoredTensor | None) -> Pair:
    """The two matrices whose product a pair of factors, and its Tucker core, stand for."""
    if core is None:
        if a.shape[1] != b.shape[0]:
            raise _unfit(module, (a, b))
        return stored(a), stored(b)
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise _unfit(module, (a, b, core))
    (ra, rows), (rb, columns) = a.shape, b.shape
    if core.shape[:2] != (ra, rb):
        raise _unfit(module, (a, b, core))
    kernel = math.prod(core.shape[2:])

    def contracted() -> Float64:
        # einsum("i j kl, i p, j r -> p r kl", t, wa, wb) = wa.T @ (t contracted with wb).
        t = float64(core).reshape(ra, rb, kernel)
        mixed: Float64 = np.einsum("ijk,jr->irk", t, float64(b), optimize=True)
        return mixed.reshape(ra, columns * kernel)

    turned = stored(a, (rows, ra), lambda array: array.T)
    return turned, computed((ra, columns * kernel), contracted)


def _f64(matrix: Matrix) -> Float64:
    copy = np.array(matrix.load(), dtype=np.float64)
    matrix.release()
    return copy


def _unfit(module: str, tensors: tuple[StoredTensor, ...]) -> AdapterError:
    shapes = ", ".join(f"{t.name} {list(t.shape)}" for t in tensors)
    return AdapterError(
        f"{module}: the factors do not fit together: {shapes}",
        remedy="Save the adapter again with save_pretrained.",
    )
