"""Builds the extension module peanutd._core out of core/*.c and native/*.c; all else is in pyproject.toml.

The rule it keeps: every file of core/ is part of the module and a change to any header rebuilds it. native/ (the
loop in C) needs Linux and the headers of OpenSSL 3 (Debian: libssl-dev); without them it is left out, a line says so,
and peanutd serves by asyncio alone. More compiler flags come in by the environment variable PEANUT_CFLAGS, for example
"-fsanitize=address,undefined -O1 -g".
"""

import os
import shlex
import sys
import tempfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PROBE = """
#include <openssl/ssl.h>
#include <sys/epoll.h>
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error too old
#endif
int main(void) { return SSL_CTX_new(TLS_server_method()) == 0; }
"""


class Build(build_ext):
    """Adds the native loop to the module where it can be built."""

    def build_extension(self, ext: Extension) -> None:
        if self._has_openssl():
            ext.sources += sorted(glob("native/*.c"))
            ext.define_macros.append(("PN_NATIVE", "1"))
            ext.libraries += ["ssl", "crypto"]
            ext.extra_compile_args.append("-pthread")
        else:
            print(
                "peanutd: no native loop, for OpenSSL 3 cannot be built with here (Debian: libssl-dev)", file=sys.stderr
            )
        super().build_extension(ext)

    def _has_openssl(self) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(PROBE)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder)
                self.compiler.link_executable(objects, "probe", output_dir=folder, libraries=["ssl", "crypto"])
            except Exception:  # of many kinds, by the compiler
                return False
        return True


extra = shlex.split(os.environ.get("PEANUT_CFLAGS", ""))

setup(
    cmdclass={"build_ext": Build},
    ext_modules=[
        Extension(
            "peanutd._core",
            sources=sorted(glob("core/*.c")),
            depends=sorted(glob("core/*.h") + glob("native/*.[ch]")),
            include_dirs=["core"],
            extra_compile_args=["-std=c11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", *extra],
            extra_link_args=extra,
        )
    ],
)
