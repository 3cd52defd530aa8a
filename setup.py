"""The C extensions, built by every ordinary install. All else about the package stands in pyproject.toml.

Both are optional: where one cannot be built the install succeeds without it, says so, and the package takes a slower
way (`alexnet.pipeline.host.available()` tells at run time). Neither is told which CPU it is for: the sources choose
between instruction sets when they are loaded.
"""

import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# Python 3.11's stable interface, so that one wheel serves every later version; free-threaded Python has none yet.
STABLE = not sysconfig.get_config_var("Py_GIL_DISABLED")
# No contraction: a multiply and an add fused into one rounding would differ from NumPy in the last bit.
COMPILE_ARGS = ["-std=c11", "-D_GNU_SOURCE", "-O3", "-ffp-contract=off", "-pthread", "-fvisibility=hidden"]
NEEDS = {
    "alexnet.pipeline.host._host": "a C compiler, Python's headers and those of libjpeg-turbo 1.5 or newer "
    "(Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev libjpeg-dev)",
    "alexnet.shards._colour": "a C compiler and Python's headers "
    "(Debian, Ubuntu: apt-get install gcc libc6-dev python3-dev)",
}


class BuildOptional(build_ext):
    """Build what can be built, and say in one line what could not be and what it needs."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension; the caller goes on after the errors of an optional one."""
        try:
            super().build_extension(ext)
        except Exception:
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            print(f"alexnet: {ext.name} was not built and a slower way is taken; it needs {NEEDS[ext.name]}")
            raise

    def copy_extensions_to_source(self) -> None:
        """For an editable install: take away what an earlier build left, as it may not fit; copy what was built."""
        for ext in self.extensions:
            name = self.get_ext_fullname(ext.name)
            folder = self.get_finalized_command("build_py").get_package_dir(name.rpartition(".")[0])
            Path(folder, Path(self.get_ext_filename(name)).name).unlink(missing_ok=True)
        super().copy_extensions_to_source()


def extension(
    name: str, sources: list[str], depends: tuple[str, ...] = (), libraries: tuple[str, ...] = ()
) -> Extension:
    """Describe one optional extension."""
    return Extension(
        name,
        sources,
        depends=[*depends],
        libraries=[*libraries],
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
        py_limited_api=STABLE,
        extra_compile_args=COMPILE_ARGS,
        extra_link_args=["-pthread"],
        optional=True,
    )


HOST = [
    f"pipeline/host/{name}.c"
    for name in ("module", "module_read", "decode", "planes", "window", "rows", "pool", "read")
]
HEADERS = tuple(
    f"pipeline/host/{name}.h" for name in ("decode", "decoder", "module", "shuffle", "rows_avx2", "window_avx2")
)
extensions = [extension("alexnet.pipeline.host._host", HOST, HEADERS, ("jpeg",))]
if Path("shards/_colour.c").exists():
    extensions.append(extension("alexnet.shards._colour", ["shards/_colour.c"]))

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": BuildOptional},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE else {},
)
