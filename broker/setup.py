"""Builds the extension module peanutd._core out of core/*.c; everything else about the package is in pyproject.toml.

The rule it keeps: every file of core/ is part of the module and a change to any header rebuilds it. More compiler flags
come in by the environment variable PEANUT_CFLAGS, for example "-fsanitize=address,undefined -O1 -g".
"""

import os
import shlex
from glob import glob

from setuptools import Extension, setup

extra = shlex.split(os.environ.get("PEANUT_CFLAGS", ""))

setup(
    ext_modules=[
        Extension(
            "peanutd._core",
            sources=sorted(glob("core/*.c")),
            depends=sorted(glob("core/*.h")),
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", *extra],
            extra_link_args=extra,
        )
    ],
)
