"""Put into each wheel the licences of the libraries that auditwheel copied into it. Run by `make wheel`.

    python tools/licences.py FOLDER WHEEL...      # writes the wheels to FOLDER

Debian's packages hold the licences: a library that belongs to none is refused. Needs the package `wheel`.
"""

import re
import subprocess
import sys
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory


def licence_of(library: str) -> Path:
    """Return the copyright file of the Debian package that a bundled library comes from; SystemExit without one."""
    original = re.sub(r"-[0-9a-f]{8}(?=\.so)", "", library)  # auditwheel put eight digits of a hash into the name
    owner = ["dpkg", "-S", f"*/{original}"]
    found = subprocess.run(owner, capture_output=True, text=True, check=False).stdout if which("dpkg") else ""
    licence = Path("/usr/share/doc", found.partition(":")[0] or original, "copyright")
    if not licence.is_file():
        sys.exit(f"no licence of {original}: {licence} is missing; build where Debian's or Ubuntu's packages hold it")
    return licence


def add_licences(wheel: Path, folder: Path) -> list[str]:
    """Write the wheel anew into `folder` and return the packages whose licences it now has."""
    with TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "wheel", "unpack", "-d", scratch, wheel], check=True, capture_output=True)
        (unpacked,) = Path(scratch).iterdir()
        (info,) = unpacked.glob("*.dist-info")
        licences = {licence_of(library.name) for library in unpacked.glob("*.libs/*")}
        packages = sorted(licence.parent.name for licence in licences)
        for licence in licences:
            target = info / "licenses" / licence.parent.name / licence.name
            target.parent.mkdir(parents=True)
            target.write_bytes(licence.read_bytes())
        headers, blank, text = (info / "METADATA").read_text().partition("\n\n")
        named = "".join(f"\nLicense-File: {package}/copyright" for package in packages)
        (info / "METADATA").write_text(headers + named + blank + text)
        subprocess.run([sys.executable, "-m", "wheel", "pack", "-d", folder, unpacked], check=True, capture_output=True)
    return packages


def main(folder: Path, wheels: list[Path]) -> None:
    """Print each wheel with what is in it from elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        print(f"{folder / wheel.name}, with {', '.join(add_licences(wheel, folder)) or 'nothing bundled'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
