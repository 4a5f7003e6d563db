"""Builds the extension module peanutd._core out of core/*.c and native/*.c; all else is in pyproject.toml.

The rule it keeps: every file of core/ is part of the module and a change to any header rebuilds it. native/ (the
loop in C) needs Linux and the headers of OpenSSL 3 (Debian: libssl-dev); without them it is left out, a line says so,
and peanutd serves by asyncio alone. The environment variable PEANUT_OPENSSL names the prefix of another OpenSSL, which
becomes part of the module: its names stay inside, for Python's own ssl brings the system's into the same process.
Where it cannot be had there is no module. More compiler flags come in by PEANUT_CFLAGS, for example
"-fsanitize=address,undefined -O1 -g". Without any, and where compiler and linker can, the module is optimised as one
(-flto): a message passes through ten files, and seven of a hundred of its instructions were calls between them.
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
AS_ONE = ["-flto=auto"]


class OpenSsl:
    """How to build with OpenSSL: the system's, or that of a prefix, whole."""

    def __init__(self, prefix: str) -> None:
        self.libraries, self.include, self.archives = ["ssl", "crypto"], [], []
        self.link = []
        if prefix:
            # Never its shared library: of two libssl.so.3 in a process the first that is loaded serves all who ask.
            found = [Path(prefix, lib) for lib in ("lib", "lib64") if Path(prefix, lib, "libssl.a").is_file()]
            if not found:
                sys.exit(
                    f"peanutd: no libssl.a in {prefix}/lib or lib64; PEANUT_OPENSSL is where OpenSSL was installed"
                )
            self.libraries, self.include = [], [f"{prefix}/include"]
            self.archives = [str(found[0] / name) for name in ("libssl.a", "libcrypto.a")]
            self.link = ["-Wl,--exclude-libs,ALL", "-Wl,-Bsymbolic"]


class Build(build_ext):
    """Adds the native loop to the module where it can be built."""

    def build_extension(self, ext: Extension) -> None:
        prefix = os.environ.get("PEANUT_OPENSSL", "")
        openssl = OpenSsl(prefix)
        if self._works(openssl):
            ext.sources += sorted(glob("native/*.c"))
            ext.define_macros.append(("PN_NATIVE", "1"))
            ext.include_dirs = [*openssl.include, *ext.include_dirs]
            ext.extra_objects += openssl.archives
            ext.libraries += openssl.libraries
            ext.extra_compile_args.append("-pthread")
            ext.extra_link_args += openssl.link
        elif prefix:
            sys.exit(f"peanutd: the OpenSSL in {prefix} cannot be built with: it is too old, or not for this machine")
        else:
            print(
                "peanutd: no native loop, for OpenSSL 3 cannot be built with here (Debian: libssl-dev)", file=sys.stderr
            )
        if not extra and self._builds("int main(void) { return 0; }", AS_ONE, [], [], []):
            ext.extra_compile_args += AS_ONE
            ext.extra_link_args += AS_ONE
        super().build_extension(ext)

    def _works(self, openssl: OpenSsl) -> bool:
        return self._builds(PROBE, [], openssl.include, openssl.archives, [*openssl.libraries, "pthread"])

    def _builds(
        self, program: str, flags: list[str], include: list[str], archives: list[str], libraries: list[str]
    ) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(program)
            try:
                objects = self.compiler.compile(
                    [str(source)], output_dir=folder, include_dirs=include, extra_postargs=flags
                )
                self.compiler.link_executable(
                    [*objects, *archives], "probe", output_dir=folder, libraries=libraries, extra_postargs=flags
                )
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
