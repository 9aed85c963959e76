"""The preprocessed header is read by cffi, and means there what it means to a C compiler.

    python3 tests/ffi/declarations.py build/libweft.so LAYOUT < DECLARATIONS

DECLARATIONS are what `cc -E -P -DWEFT_FFI -Iinclude include/weft/weft.h` prints, LAYOUT what
tests/abi/layout does: each size, offset and constant in it is held to what cffi makes of the text.
Then a few functions are called.
"""
import os
import re
import sys

import cffi


def check_layout(ffi, lib, path):
    """How many lines there are, each of which holds."""
    count = 0
    with open(path, encoding="ascii") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("first "):         # the library's own business
                continue
            sizeof = re.fullmatch(r"sizeof (\w+) (\d+)", line)
            field = re.fullmatch(r"(\w+)\.(\w+) at (\d+) size (\d+)", line)
            constant = re.fullmatch(r"(WEFT_\w+) (-?\d+)", line)
            if sizeof:
                assert ffi.sizeof(sizeof[1]) == int(sizeof[2]), line
            elif field:
                struct, name, at, size = field[1], field[2], int(field[3]), int(field[4])
                assert ffi.offsetof(struct, name) == at, line
                assert ffi.sizeof(dict(ffi.typeof(struct).fields)[name].type) == size, line
            else:
                assert constant, "not understood: " + line
                assert getattr(lib, constant[1]) == int(constant[2]), line
            count += 1
    return count


def main():
    ffi = cffi.FFI()
    ffi.cdef(sys.stdin.read())
    lib = ffi.dlopen(os.path.abspath(sys.argv[1]))
    count = check_layout(ffi, lib, sys.argv[2])
    assert count > 400, "only %d lines of layout" % count

    with open("lib/weft.map", encoding="ascii") as exports:
        for name in re.findall(r"\bweft_\w+", exports.read()):
            assert ffi.typeof(getattr(lib, name)).kind == "function", name

    options, model = ffi.new("weft_model_options *"), ffi.new("weft_model **")
    err = ffi.new("weft_error *")
    lib.weft_model_options_init(options, ffi.sizeof("weft_model_options"))
    assert options.struct_size == ffi.sizeof("weft_model_options")
    status = lib.weft_model_open(b"nowhere", options, model, err)
    assert status == lib.WEFT_E_IO and err.code == status, "opening nowhere got status %d" % status
    assert b"nowhere" in ffi.string(err.text) and model[0] == ffi.NULL
    assert ffi.string(lib.weft_status_name(status)) == b"WEFT_E_IO"
    return 0


if __name__ == "__main__":
    sys.exit(main())
