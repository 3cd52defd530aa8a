"""Say how much room is needed and how much there is, so that it shows that there is too little."""

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def needed_and_free(needed: float, free: float) -> str:
    """Name two numbers of bytes, in the unit that suits the greater and with as many digits as tell them apart."""
    unit, scale = next((unit for unit in _UNITS if needed >= unit[1]), _UNITS[-1])
    for digits in range(1, 4):
        wanted, there = (f"{value / scale:,.{digits}f} {unit}" for value in (needed, free))
        if wanted != there:
            break
    return f"about {wanted} are needed and {there} are free"
