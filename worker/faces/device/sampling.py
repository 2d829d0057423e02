"""Pixels on the device: from planes to RGB, scaled copies as matrix products, faces cut out by gathering.

Pictures are uint8 (b, 3, H, W), RGB, one plane a channel. They may be larger than what they show: ``last`` float32 (2,)
is the place of the last pixel across and down.
"""

from typing import Any

from keras import ops


def rgb(luma: Any, u: Any, v: Any, colours: Any) -> Any:
    """Pictures uint8 (b, 3, H, W) of planes: ``luma`` uint8 (b, H, W), ``u`` and ``v`` uint8 (b, H/2, W/2).

    Args:
        colours: int32 (b, 6), see :func:`worker.faces.device.pictures.colours_of`.
    """

    def share(plane: Any, number: int) -> Any:
        return plane * 8 * colours[:, number, None, None] // 65536

    def whole(plane: Any) -> Any:
        return ops.repeat(ops.repeat(plane, 2, axis=1), 2, axis=2)

    grey = share(ops.cast(luma, "int32") - colours[:, 0, None, None], 1)
    u, v = ops.cast(u, "int32") - 128, ops.cast(v, "int32") - 128
    red, green, blue = share(v, 2), share(u, 3) + share(v, 4), share(u, 5)
    pixels = ops.stack([grey + whole(red), grey + whole(green), grey + whole(blue)], axis=1)
    return ops.cast(ops.clip(pixels, 0, 255), "uint8")


def channels_first(pixels: Any) -> Any:
    """Pictures of RGB as it usually lies, uint8 (b, H, W, 3)."""
    return ops.transpose(pixels, (0, 3, 1, 2))


def halved(pictures: Any, rows: tuple[Any, Any], columns: tuple[Any, Any]) -> Any:
    """uint8 (b, 3, h, w): averaged by area to half the size.

    ``rows`` and ``columns``: the places int32 (3, h) that each pixel is made of, and their shares float32 (3, h).
    """
    places, shares = rows
    lines = sum(ops.cast(ops.take(pictures, places[tap], axis=2), "float32") * shares[tap][:, None] for tap in range(3))
    places, shares = columns
    return ops.cast(rounded(sum(ops.take(lines, places[tap], axis=3) * shares[tap] for tap in range(3))), "uint8")


def level(pictures: Any, rows: tuple[Any, Any], columns: tuple[Any, Any]) -> Any:
    """uint8 (b, 3, h, w): linear samples at twice the size of the level, averaged by fours.

    The samples are those of OpenCV, whose arithmetic of whole numbers cuts off a little: an eighth of a grey value on
    average, which tells in the faces that are found.

    Args:
        rows: the places int32 (2, 2 h) between which each sample lies, and their weights int32 (2, 2 h) in 1/2048.
        columns: the same for (2, 2 w).
    """
    lines, line_weights = rows
    pixels, pixel_weights = columns

    def across(tap: int) -> Any:
        line = ops.take(pictures, lines[tap], axis=2)
        left, right = (ops.cast(ops.take(line, pixels[side], axis=3), "int32") * pixel_weights[side] for side in (0, 1))
        return (left + right) // 16 * line_weights[tap][:, None] // 65536

    upper, lower = across(0), across(1)
    samples = (upper + lower + 2) // 4
    batch, channels, height, width = samples.shape
    fours = ops.reshape(samples, (batch, channels, height // 2, 2, width // 2, 2))
    return ops.cast((ops.sum(fours, axis=(3, 5)) + 2) // 4, "uint8")


def rounded(values: Any) -> Any:
    """To whole numbers, as pixels are."""
    return ops.floor(values + 0.5)


def crops(pictures: Any, squares: Any, last: Any, steps: Any) -> Any:
    """float32 (b, k, side, side, 3), whole values: each square, corner-aligned bilinear, 128 outside the picture.

    The samples of :func:`worker.faces.detectors.mtcnn.cut_out`.

    Args:
        squares: float32 (b, k, 4) px.
        steps: float32 (side,), from 0 to 1.
    """
    corners, sides = squares[..., :2], squares[..., 2:] - squares[..., :2]
    places = (corners[..., None] + sides[..., None] * steps) * (last / (last + 1.0))[:, None]
    outside = (places < 0) | (places > last[:, None])
    found = _bilinear(pictures, places[:, :, None, 0, :], places[:, :, 1, :, None], last)
    beyond = outside[:, :, None, 0, :] | outside[:, :, 1, :, None]
    return ops.where(beyond[..., None], 128.0, rounded(found))


def chips(pictures: Any, owners: Any, to_picture: Any, last: Any, side: int) -> Any:
    """float32 (n, side, side, 3), whole values: the faces that a network takes; the edge is repeated outside.

    The samples of :func:`worker.faces.alignment.warp` for faces that need no averaging.

    Args:
        owners: int32 (n,), the picture of each.
        to_picture: float32 (n, 2, 3), from px of the chip to px of the picture.
    """
    steps = ops.arange(side, dtype="float32")
    across, down = steps[None, None, :], steps[None, :, None]
    matrix = to_picture[..., None, None]
    x = matrix[:, 0, 0] * across + matrix[:, 0, 1] * down + matrix[:, 0, 2]
    y = matrix[:, 1, 0] * across + matrix[:, 1, 1] * down + matrix[:, 1, 2]
    return rounded(_gathered(pictures, owners[:, None, None], x, y, last))


def _bilinear(pictures: Any, x: Any, y: Any, last: Any) -> Any:
    batch = pictures.shape[0]
    owners = ops.reshape(ops.arange(batch, dtype="int32"), (batch, 1, 1, 1))
    return _gathered(pictures, owners, x, y, last)


def _gathered(pictures: Any, owners: Any, x: Any, y: Any, last: Any) -> Any:
    """float32 (..., 3) at ``x``, ``y``; beyond the picture its edge."""
    _, channels, height, width = pictures.shape
    flat = ops.reshape(pictures, (-1,))
    planes = ops.arange(channels, dtype="int32") * (height * width)
    left, top = ops.floor(x), ops.floor(y)
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]

    def column(values: Any) -> Any:
        return ops.cast(ops.minimum(ops.relu(values), last[0]), "int32")

    def row(values: Any) -> Any:
        return ops.cast(ops.minimum(ops.relu(values), last[1]), "int32") * width

    first = owners * (channels * height * width)

    def at(columns: Any, rows: Any) -> Any:
        places = (first + rows + columns)[..., None] + planes
        return ops.cast(ops.take(flat, places, axis=0), "float32")

    upper, lower, near, far = row(top), row(top + 1.0), column(left), column(left + 1.0)
    above = at(near, upper) * (1.0 - right_share) + at(far, upper) * right_share
    below = at(near, lower) * (1.0 - right_share) + at(far, lower) * right_share
    return above * (1.0 - lower_share) + below * lower_share
