"""Builds the library of native kernels, once for each instruction set; without a compiler the package does without it.

SCRATCH_DL_SANITIZE=1 builds it with AddressSanitizer.
"""

import os
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

SOURCES = Path("src/scratch_dl/kernels/cpp")
X86 = platform.machine().lower() in ("x86_64", "amd64")
VARIANTS = {"portable": []}
if X86:
    VARIANTS["avx2"] = ["-DVARIANT_AVX2", "-mavx2", "-mfma"]
    VARIANTS["avx512"] = ["-DVARIANT_AVX512", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma",
                          "-mprefer-vector-width=512"]  # fmt: skip
COMMON = ["-std=c++17", "-O3", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fvisibility-inlines-hidden",
          "-Wall", "-Wextra", "-g0"]  # fmt: skip
STRIPPED = ["-s"] if sys.platform == "linux" else []  # symbols and debugging information take 14 times as much
# Checks as calls, not inline: the compiler takes a third of the time for them.
SANITIZE = ["-fsanitize=address", "--param", "asan-instrumentation-with-call-threshold=0", "-g1", "-O1"]


class BuildNative(build_ext):
    """Compiles `variant.cpp` with the flags of each instruction set, and links all of them into one library."""

    def build_extension(self, ext):
        """Leave the extension out, and say so, if it cannot be built."""
        try:
            self._build(ext)
        except (BaseError, CCompilerError, OSError) as error:
            first = " ".join(str(error).split())
            print(f"scratch_dl: the native kernels could not be built, so it will run on reference: {first}",
                  file=sys.stderr)  # fmt: skip

    def _build(self, ext):
        sanitize = SANITIZE if os.environ.get("SCRATCH_DL_SANITIZE") == "1" else []
        folder = Path(self.build_temp) / ("sanitized" if sanitize else "plain")
        jobs = [("variant.cpp", folder / name, flags) for name, flags in VARIANTS.items()]
        # As scratch_dl.kernels.library.sources_digest, which cannot be imported before its package is built.
        files = sorted(path for path in SOURCES.iterdir() if path.suffix in (".h", ".cpp"))
        digest = sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
        jobs.append(
            ("library.cpp", folder, [f'-DSCRATCH_DL_SOURCES="{digest}"', *(["-DSCRATCH_DL_X86"] if X86 else [])])
        )
        with ThreadPoolExecutor() as pool:
            compiled = pool.map(lambda job: self._compiled(*job[:2], [*COMMON, *job[2], *sanitize]), jobs)
            objects = [path for paths in compiled for path in paths]
        # Not linked with OpenMP: it is to use the threads of the one that torch has loaded.
        path = Path(self.get_ext_fullpath(ext.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, str(path), extra_postargs=sanitize or STRIPPED, target_lang="c++")

    def _compiled(self, source, folder, flags):
        folder.mkdir(parents=True, exist_ok=True)
        return self.compiler.compile([str(SOURCES / source)], output_dir=str(folder), extra_postargs=flags)


setup(
    ext_modules=[
        Extension(
            "scratch_dl.kernels._native",
            sources=[str(SOURCES / name) for name in ("variant.cpp", "library.cpp")],
            optional=True,
            depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
        )
    ],
    cmdclass={"build_ext": BuildNative},
)
