"""Colours of the page in light and dark, and which of black and white can be read on the cells of heat maps."""

LIGHT = {
    "paper": "#fdfdfb",
    "ink": "#1d2024",
    "muted": "#5c626a",
    "line": "#e4e4df",
    "wash": "#f4f4f0",
    "accent": "#2456c8",
    "wrong": "#b92d25",
    "right": "#17744a",
    **{f"s{place}": colour for place, colour in enumerate(("#b9bdc4", "#b7c9f2", "#7f9fe4", "#2456c8", "#173a8c"))},
    # Series of plots: Okabe and Ito's colours, darkened where they stand on white.
    **{
        f"c{place}": colour
        for place, colour in enumerate(("#2456c8", "#b4500a", "#00785a", "#9a3d77", "#6b5a00", "#4a4f57"))
    },
}
DARK = {
    "paper": "#16181b",
    "ink": "#e7e7e3",
    "muted": "#a3a9b1",
    "line": "#2c3035",
    "wash": "#1d2024",
    "accent": "#82a5ff",
    "wrong": "#ff7a70",
    "right": "#5fd39a",
    **{f"s{place}": colour for place, colour in enumerate(("#5b626b", "#2f4474", "#5273bd", "#82a5ff", "#bfd0ff"))},
    **{
        f"c{place}": colour
        for place, colour in enumerate(("#82a5ff", "#f2a45c", "#4ecfa5", "#e39ac4", "#d9c64a", "#b4bac2"))
    },
}


def luminance(colour: str, *, over: str = "#000000", opacity: float = 1.0) -> float:
    """Return the relative luminance (WCAG 2.2) of a colour, mixed over another one by its opacity.

    Example:
        >>> luminance("#ffffff"), luminance("#000000", over="#ffffff", opacity=0.0)
        (1.0, 1.0)
    """
    total = 0.0
    for weight, place in ((0.2126, 1), (0.7152, 3), (0.0722, 5)):
        mixed = opacity * int(colour[place : place + 2], 16) + (1 - opacity) * int(over[place : place + 2], 16)
        value = round(mixed) / 255
        total += weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    return total


def contrast(one: float, other: float) -> float:
    """Return the contrast ratio of two luminances, 1 to 21."""
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)


def text_on(strength: float, colours: dict[str, str]) -> str:
    """Return "black" or "white", whichever can be read better on the accent at an opacity over the paper.

    The better of both has a contrast of at least 4.58 on any background.

    Example:
        >>> text_on(0.0, LIGHT), text_on(1.0, LIGHT), text_on(0.0, DARK), text_on(1.0, DARK)
        ('black', 'white', 'white', 'black')
    """
    background = luminance(colours["accent"], over=colours["paper"], opacity=strength)
    return "black" if contrast(background, 0.0) >= contrast(background, 1.0) else "white"
