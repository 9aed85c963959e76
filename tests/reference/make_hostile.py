"""Files that mean harm, byte by byte: tests/data/hostile, and in expected.json what a reader has to answer.

Neither torch nor pickle writes them: opcodes and archives are put together here, so that each is wrong in one way.
An answer is a status and a part of its text, or "WEFT_OK" and the names of the tensors that may come out.
"""
import json
import os
import struct

from common import DATA

OUT = os.path.join(DATA, "hostile")
os.makedirs(OUT, exist_ok=True)
for name in os.listdir(OUT):
    os.remove(os.path.join(OUT, name))
expected = {}


def case(name, data, status, text):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)
    expected[name] = {"status": status, "text": text}


def refused(name, data, text):
    case(name, data, "WEFT_E_FORMAT", text)


def unsupported(name, data, text):
    case(name, data, "WEFT_E_UNSUPPORTED", text)


def inert(name, data, *tensors):
    case(name, data, "WEFT_OK", " ".join(tensors))


# ---- pickles ----

def text(s):
    b = s.encode() if isinstance(s, str) else s
    return b"X" + struct.pack("<I", len(b)) + b


def number(i):
    if 0 <= i < 256:
        return b"K" + bytes([i])
    if -2 ** 31 <= i < 2 ** 31:
        return b"J" + struct.pack("<i", i)
    return b"\x8a\x08" + struct.pack("<q", i)


def ints(*values):
    return b"(" + b"".join(map(number, values)) + b"t"


def name_of(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(module, name, *args):
    return name_of(module, name) + b"(" + b"".join(args) + b"tR"


def storage(key="0", kind="FloatStorage", count=4):
    return b"(" + text("storage") + name_of("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(store=None, offset=0, shape=(4,), stride=(1,), more=b""):
    return call("torch._utils", "_rebuild_tensor_v2", storage() if store is None else store, number(offset),
                ints(*shape), ints(*stride), b"\x89", call("collections", "OrderedDict"), more)


def dict_of(*pairs):
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def pickled(value):
    return b"\x80\x02" + value + b"."


good = (text("good"), tensor())


# ---- archives ----

class Member:
    """A member, each field of which may lie."""

    def __init__(self, name, data, **lies):
        self.name, self.data = name.encode() if isinstance(name, str) else name, data
        self.method = self.flags = 0
        self.size = self.stored = len(data)
        self.local_name = self.local_size = self.offset = None
        self.wide = self.wide_local = None      # 64-bit extra fields; the ordinary ones then say 2^32-1
        self.__dict__.update(lies)

    def local(self):
        name = self.name if self.local_name is None else self.local_name
        size, extra = self.size if self.local_size is None else self.local_size, self.wide_local or b""
        stored = self.stored if self.local_size is None else size
        if extra:
            size = stored = 0xffffffff
        return struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, self.flags, self.method, 0, 0, 0, stored, size, len(name),
                           len(extra)) + name + extra

    def central(self, offset):
        size, stored, extra = self.size, self.stored, b""
        if self.wide is not None:
            extra, size, stored = self.wide(self, offset), 0xffffffff, 0xffffffff
            offset = 0xffffffff
        return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, self.flags, self.method, 0, 0, 0, stored, size,
                           len(self.name), len(extra), 0, 0, 0, 0, offset) + self.name + extra


def wide(member, offset):
    return struct.pack("<HHQQQ", 1, 24, member.size, member.stored, offset)


def wide_local(size):
    return struct.pack("<HHQQ", 1, 16, size, size)


def archive(members, count=None, length=None, begin=None, disk=0, before_end=b"", after=b""):
    data, offsets = b"", []
    for m in members:
        offsets.append(len(data) if m.offset is None else m.offset)
        data += m.local() + m.data
    directory = b"".join(m.central(o) for m, o in zip(members, offsets))
    n = len(members) if count is None else count
    return (data + directory + before_end +
            struct.pack("<4sHHHHIIH", b"PK\5\6", disk, disk, n, n, len(directory) if length is None else length,
                        len(data) if begin is None else begin, 0) + after)


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def members(pickle, storages=None):
    stores = {"0": FOUR} if storages is None else storages
    return [Member("a/data.pkl", pickle)] + [Member("a/data/" + k, v) for k, v in stores.items()]


def torch_file(value, storages=None):
    return archive(members(pickled(value), storages))


# ---- calls: nothing may happen, and what the call might have given is nobody's tensor ----

harm = text("touch weft_was_here")
inert("call_system.pt", torch_file(dict_of((text("x"), call("os", "system", harm)), good)), "good")
inert("call_posix.pt", torch_file(dict_of((text("x"), call("posix", "system", harm)), good)), "good")
inert("call_eval.pt", torch_file(dict_of(
    (text("x"), call("builtins", "eval", text("open('weft_was_here','w')"))),
    (text("y"), call("__builtin__", "exec", text("open('weft_was_here','w')"))), good)), "good")
inert("call_nested.pt", torch_file(dict_of(
    (text("x"), call("builtins", "getattr", name_of("os", "system"), text("__call__")) + b"(" + harm + b"tR"), good)),
    "good")
inert("call_stack_global.pt", torch_file(dict_of(
    (text("x"), text("subprocess") + text("Popen") + b"\x93(" + harm + b"tR"), good)), "good")
inert("call_newobj_build.pt", torch_file(dict_of(
    (text("x"), name_of("os", "popen") + b"(" + harm + b"t\x81" + dict_of((text("__setstate__"), name_of("os", "system"))) +
     b"b"), good)), "good")
inert("call_fills.pt", torch_file(dict_of(
    (text("x"), call("os", "environ") + b"(" + text("a") + tensor() + b"u"),
    (text("y"), call("site", "addsitedir") + b"(" + tensor() + b"e"), good)), "good")
inert("call_as_key.pt", torch_file(dict_of((name_of("os", "system"), tensor()), good)), "good")
inert("call_imitates_tensor.pt", torch_file(dict_of(
    (text("x"), call("evil._utils", "_rebuild_tensor_v2", storage(), number(0), ints(4), ints(1), b"\x89", b"N")), good)),
    "good")
unsupported("call_at_root.pt", torch_file(call("os", "system", harm)), "an object of class os.system, saved whole")
unsupported("symbol_at_root.pt", torch_file(name_of("os", "system")), "no tensors")
unsupported("storage_of_class.pt", torch_file(dict_of((text("x"), b"(" + text("storage") + name_of("os", "system") +
            text("0") + text("cpu") + number(4) + b"tQ"))), "a storage of type os.system")
refused("call_int.pt", torch_file(number(1) + b")R"), "something is called that is no function")
refused("call_no_tuple.pt", torch_file(name_of("os", "system") + harm + b"R"), "the arguments of a call are no tuple")
refused("build_symbol.pt", torch_file(name_of("os", "system") + b"}b"), "a state is given to something that has none")
refused("name_endless.pt", torch_file(b"c" + b"a" * 2000), "a name does not end")
refused("name_bytes.pt", torch_file(b"c\xff\nx\n"), "a name is not UTF-8")
refused("name_of_numbers.pt", torch_file(number(1) + number(2) + b"\x93"), "the name of a class is not two short strings")

# ---- opcodes that torch.save does not write ----

for code, label in [(b"i", "inst"), (b"o", "obj"), (b"\x92", "newobj_ex"), (b"P", "persid"), (b"\x82", "ext1"),
                    (b"2", "dup"), (b"0", "pop"), (b"1", "pop_mark"), (b"\x8b", "long4"), (b"I", "int"), (b"L", "long"),
                    (b"S", "string"), (b"V", "unicode"), (b"p", "put"), (b"g", "get"), (b"d", "dict"), (b"l", "list"),
                    (b"\x8f", "empty_set"), (b"B", "binbytes"), (b"\x8d", "binunicode8"), (b"\x96", "bytearray8"),
                    (b"\x97", "next_buffer"), (b"\xff", "none"), (b"\0", "nul")]:
    refused(f"opcode_{label}.pt", torch_file(code + b"0\n"), f"byte 2: opcode 0x{code[0]:02x}, which torch.save does not")

# ---- a machine that runs wild ----

refused("protocol_1.pt", archive(members(b"\x80\x01}.")), "protocol 1, expected 2 to 5")
refused("protocol_9.pt", archive(members(b"\x80\x09}.")), "protocol 9, expected 2 to 5")
refused("empty.pt", archive(members(b"")), "it ends without a STOP")
refused("no_stop.pt", archive(members(b"\x80\x02}")), "it ends without a STOP")
refused("stop_alone.pt", torch_file(b""), "a value is taken where there is none")
refused("left_over.pt", torch_file(b"}}"), "values are left at the STOP")
refused("no_mark.pt", torch_file(b"}u"), "a mark is asked for where there is none")
refused("mark_taken.pt", torch_file(b"(a"), "a value is taken where there is none")
refused("underflow.pt", torch_file(b"N\x87"), "a value is taken where there is none")
refused("append_to_dict.pt", torch_file(b"}Na"), "values are appended to something that is no list")
refused("set_in_list.pt", torch_file(b"]NNs"), "items are set in something that is no dict")
refused("set_alone.pt", torch_file(b"NNs"), "items are set in something that is no dict")
refused("odd_items.pt", torch_file(b"}(Nu"), "a key has no value")
refused("memo_unwritten.pt", torch_file(b"h\5"), "memo 5 is read before it is written")
refused("memo_hole.pt", torch_file(b"}q\7h\3"), "memo 3 is read before it is written")
refused("memo_huge.pt", torch_file(b"}r\xff\xff\xff\xff"), "more than 1000000 values in the memo")
refused("memo_huge_get.pt", torch_file(b"}j\xff\xff\xff\xff"), "memo 4294967295 is read before it is written")
refused("memo_of_nothing.pt", torch_file(b"q\0"), "a value is remembered where there is none")
refused("memo_of_mark.pt", torch_file(b"(q\0"), "a value is remembered where there is none")
refused("string_huge.pt", torch_file(b"X\xff\xff\xff\x7f"), "a string of 2147483647 bytes, expected at most 1048576")
refused("string_cut.pt", archive(members(b"\x80\x02X\x40\0\0\0abc")), "64 bytes are asked for and 3 are left")
refused("long_cut.pt", archive(members(b"\x80\x02\x8a\xff\1")), "255 bytes are asked for and 1 are left")
refused("frame_cut.pt", archive(members(b"\x80\x04\x95\1\2")), "8 bytes are asked for and 2 are left")
inert("frame_lies.pt", torch_file(b"\x95\xff\xff\xff\xff\xff\xff\xff\xff" + dict_of(good)), "good")
inert("string_not_utf8.pt", torch_file(dict_of((text(b"\xff\xfe"), tensor()), (text(b"a\0b"), tensor()), good)), "good")

# ---- trees that are none ----

refused("own_member.pt", torch_file(b"]q\0h\0a"), "lists and dicts nested deeper than 64")
refused("own_value.pt", torch_file(b"}q\0" + text("x") + b"h\0s"), "lists and dicts nested deeper than 64")
refused("two_in_each_other.pt", torch_file(b"]q\0]q\1h\0aa"), "lists and dicts nested deeper than 64")
refused("deep_lists.pt", torch_file(b"]" * 100 + b"a" * 99), "lists and dicts nested deeper than 64")
refused("deep_tuples.pt", torch_file(b"N" + b"\x85" * 1000), "lists and dicts nested deeper than 64")
inert("deep_unseen.pt", torch_file(dict_of((b"N" + b"\x85" * 1000, number(1)), good)), "good")


def laughs(leaf, levels=9, width=10):
    """Each level is a list that holds the one below it ten times."""
    code = leaf + b"q\0"
    for level in range(1, levels + 1):
        code += b"(" + b"h" + bytes([level - 1]) + (b"h" + bytes([level - 1])) * (width - 1) + b"tq" + bytes([level])
    return b"(" + code + b"t"


refused("laughs_numbers.pt", torch_file(laughs(number(1))), "more than 400000 values when its lists and dicts are followed")
refused("laughs_nothing.pt", torch_file(laughs(b"]")), "more than 400000 values when its lists and dicts are followed")
refused("laughs_tensors.pt", torch_file(laughs(tensor(), 6)), "more than 100000 tensors")
refused("laughs_text.pt", torch_file(laughs(text("ha" * 5000), 5)), "more than 64 MiB of strings and their names")
refused("laughs_names.pt", torch_file(dict_of((text("n" * 900), dict_of((text("n"), laughs(number(1), 6)))))),
        "more than 64 MiB of strings and their names")
refused("same_name.pt", torch_file(dict_of((text("a"), tensor()), (text("a"), tensor()))), 'two tensors are named "a"')
refused("same_dotted_name.pt", torch_file(dict_of((text("a.b"), tensor()), (text("a"), dict_of((text("b"), tensor()))))),
        'two tensors are named "a.b"')
refused("same_meta.pt", torch_file(dict_of((text("1"), number(5)), (number(1), number(6)))),
        'two metadata values are named "1"')
refused("name_long.pt", torch_file(dict_of((text("n" * 1025), tensor()))), "has more than 1024 bytes")
refused("name_long_path.pt", torch_file(dict_of((text("n" * 1000), dict_of((text("m" * 30), tensor()))))),
        "has more than 1024 bytes")

# ---- tensors that reach too far ----


def one(name, text_, storages=None, status=refused, **how):
    status(name, torch_file(dict_of((text("t"), tensor(**how))), storages), text_)


one("shape_negative.pt", "a tensor's shape or stride is not a number from 0", shape=(-4,))
one("stride_negative.pt", "a tensor's shape or stride is not a number from 0", stride=(-1,))
one("offset_negative.pt", "a tensor's offset is not a number from 0", offset=-1)
one("offset_beyond.pt", "reaches to element 4 of a storage of 4", offset=4, shape=(1,))
one("offset_huge.pt", "its strides overflow", offset=2 ** 63 - 1, shape=(4,), stride=(2 ** 62,))
one("shape_beyond.pt", 'tensor "t" reaches to element 4 of a storage of 4', shape=(5,))
one("stride_beyond.pt", "reaches to element 6 of a storage of 4", stride=(2,))
one("scalar_beyond.pt", "reaches to element 9 of a storage of 4", offset=9, shape=(), stride=())
one("shape_overflow.pt", "the product of its shape overflows", shape=(2 ** 40, 2 ** 40), stride=(0, 0))
one("bytes_overflow.pt", "the product of its shape overflows", shape=(2 ** 62,), stride=(0,))
one("stride_overflow.pt", "its strides overflow", shape=(3, 3), stride=(1, 2 ** 63 - 1))
one("spread.pt", "would be spread to 4294967296 bytes, too many for a file of", shape=(2 ** 30,), stride=(0,))
one("spread_to_zero.pt", "the product of its shape overflows", shape=(2 ** 40, 2 ** 40, 0), stride=(0, 0, 0))
one("rank_9.pt", "a tensor has more than 8 dimensions", shape=(1,) * 9, stride=(1,) * 9)
one("rank_differs.pt", "a tensor's shape and stride differ in length", shape=(2, 2))
one("key_up.pt", 'storage "../0": a key with a path in it', store=storage("../0"))
one("key_down.pt", 'storage "a/0": a key with a path in it', store=storage("a/0"))
one("key_backslash.pt", "a key with a path in it", store=storage("a\\0"))
one("key_absent.pt", 'storage "7" is not in the archive', store=storage("7"))
one("key_long.pt", "the key of a storage has more than 256 bytes", store=storage("0" * 257))
one("key_empty.pt", 'storage "" is not in the archive', store=storage(""))
one("storage_short.pt", 'storage "0" has 16 bytes, but 5 elements of F32 are promised', store=storage(count=5))
one("storage_long.pt", 'storage "0" has 16 bytes, but 3 elements of F32 are promised', store=storage(count=3))
one("storage_type.pt", 'storage "0" has 16 bytes, but 4 elements of F64 are promised', store=storage(kind="DoubleStorage"))
one("storage_negative.pt", "a storage is not described by type, key, place and size", store=storage(count=-1))
one("storage_overflow.pt", 'storage "0" has 16 bytes', store=storage(count=2 ** 62))
one("storage_quantised.pt", "a storage of type torch.QInt8Storage", status=unsupported,
    store=storage(kind="QInt8Storage"))
one("storage_is_number.pt", "a tensor is not built from a storage", store=number(1))
one("storage_two_types.pt", 'storage "0" has 16 bytes, but 4 elements of F16', store=storage(kind="HalfStorage"))
# Such bits stand beside a tensor, and its storage holds the numbers without them.
for bit in "neg", "conj":
    unsupported(f"tensor_{bit}.pt", torch_file(dict_of((text("t"), tensor(more=dict_of((text(bit), b"\x88")))))),
                "a tensor that is kept with the other sign")
inert("tensor_not_neg.pt", torch_file(dict_of((text("good"), tensor(more=dict_of((text("neg"), b"\x89"),
                                                                                (text("other"), b"N")))))), "good")
refused("tensor_metadata.pt", torch_file(dict_of((text("t"), tensor(more=text("x"))))), "a tensor's metadata is no dict")
spreads = [(text(f"t{i}"), tensor(shape=(2 ** 22,), stride=(0,))) for i in range(6)]
refused("spread_often.pt", torch_file(dict_of(*spreads)), "would be spread to 16777216 bytes")
refused("tensor_of_nothing.pt", torch_file(call("torch._utils", "_rebuild_tensor_v2")), "built from too few values")
refused("parameter_of_number.pt", torch_file(call("torch._utils", "_rebuild_parameter", number(1), b"\x89", b"N")),
        "a parameter is not built from a tensor")
refused("persistent_string.pt", torch_file(text("storage") + b"Q"), "a persistent id is not a tuple")
refused("persistent_empty.pt", torch_file(b")Q"), "a persistent id is not a tuple")
refused("persistent_stranger.pt", torch_file(b"(" + text("file") + text("/etc/passwd") + b"tQ"),
        "a persistent id that is neither a storage nor a class")
unsupported("type_stranger.pt", torch_file(dict_of((text("t"), call(
    "torch._utils", "_rebuild_tensor_v3", storage(), number(0), ints(4), ints(1), b"\x89", b"N", name_of("torch", "qint8"))))),
    "a tensor of a type that is not one of plain numbers")

# A ParameterDict that is given a million parameters again and again.
many = b"}(" + b"".join(number(i) + b"N" for i in range(300)) + b"u"
state = b"}" + text("_parameters") + many + b"sq\1"
again = name_of("torch.nn.modules.container", "ParameterDict") + b"q\2)\x81" + b"h\1b" * 8000
refused("parameters_again.pt", torch_file(b"(" + state + again + b"t"), "more than 2000000 steps")
inert("parameters_own.pt", torch_file(dict_of(
    (text("x"), name_of("torch.nn.modules.container", "ParameterDict") + b")\x81q\1h\1b}" + text("_parameters") + b"h\1sb"),
    good)), "good")

# ---- archives ----

pkl = pickled(dict_of(good))
base = members(pkl)
whole = archive(base)
unsupported("zip_deflated.pt", archive([Member("a/data.pkl", pkl, method=8)] + base[1:]), '"a/data.pkl" is compressed')
unsupported("zip_bomb.pt", archive(base[:1] + [Member("a/data/0", b"\x4b\x4c\x1c\x05\xa3\x60", method=8, size=2 ** 31)]),
            '"a/data/0" is compressed')
unsupported("zip_encrypted.pt", archive([Member("a/data.pkl", pkl, flags=1)] + base[1:]), "is encrypted")
refused("zip_method_differs.pt", whole.replace(b"PK\3\4\x14\0\0\0\0\0", b"PK\3\4\x14\0\0\0\x08\0", 1),
        '"a/data.pkl" has a header that differs from the directory')
refused("zip_sizes_differ.pt", archive(base[:1] + [Member("a/data/0", FOUR, size=2 ** 20)]),
        "has sizes that contradict each other")
refused("zip_size_too_large.pt", archive(base[:1] + [Member("a/data/0", FOUR, size=2 ** 20, stored=2 ** 20)]),
        "has 1048576 bytes, but only 16 are left before the directory")
refused("zip_local_size.pt", archive(base[:1] + [Member("a/data/0", FOUR, local_size=12)]),
        '"a/data/0" has another size in its own header')
refused("zip_local_name.pt", archive(base[:1] + [Member("a/data/0", FOUR, local_name=b"a/data/1")]),
        '"a/data/0" has another name in its own header')
refused("zip_same_member.pt", archive(base + [Member("a/data/0", FOUR)]), 'two zip members are named "a/data/0"')
refused("zip_shared_bytes.pt", archive(base + [Member("a/data/1", b"", offset=len(base[0].local() + pkl), size=16, stored=16)]),
        '"a/data/1" has another name in its own header')
nested = Member("a/data/1", FOUR)
inner = nested.local() + FOUR
outer = Member("a/data/0", inner)
first = Member("a/data.pkl", pkl)
at = len(first.local() + pkl) + len(outer.local())
data = first.local() + pkl + outer.local() + inner
directory = first.central(0) + outer.central(len(first.local() + pkl)) + nested.central(at)
refused("zip_overlap.pt", data + directory + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 3, 3, len(directory), len(data), 0),
        'zip members "a/data/0" and "a/data/1" overlap')
refused("zip_outside.pt", archive(base[:1] + [Member("a/data/0", FOUR, offset=2 ** 31)]), "begins outside the data")
refused("zip_no_header.pt", archive(base[:1] + [Member("a/data/0", FOUR, offset=5)]), "has no header where it begins")
refused("zip_no_end.pt", whole[:-22], "it has no end record: cut short?")
refused("zip_end_cut.pt", whole[:-1], "it has no end record: cut short?")
refused("zip_directory_cut.pt", archive(base, count=3), "members, but a directory of")
refused("zip_directory_long.pt", archive(base, count=1), "its directory has more than its members")
refused("zip_directory_moved.pt", archive(base, begin=10), "does not end at byte")
refused("zip_directory_beyond.pt", archive(base, begin=2 ** 31), "does not end at byte")
unsupported("zip_no_members.pt", b"PK\3\4" + archive([], begin=4), "a zip archive without a data.pkl")
refused("zip_disks.pt", archive(base, disk=1), "it is split over several disks")
locator = b"PK\6\7" + struct.pack("<IQI", 0, 2 ** 60, 1)
refused("zip64_outside.pt", archive(base, before_end=locator), "its 64-bit end record lies outside the file")
locator = b"PK\6\7" + struct.pack("<IQI", 0, 0, 1)
refused("zip64_elsewhere.pt", archive(base, before_end=locator), "its locator points to something that is no 64-bit end")
record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2 ** 62, 2 ** 62, 2 ** 63, 2 ** 63)
end = len(archive(base)) - 22
refused("zip64_huge.pt", archive(base, before_end=record + b"PK\6\7" + struct.pack("<IQI", 0, end, 1)), "does not end at byte")
body = b"".join(m.local() + m.data for m in base)
record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2 ** 62, 2 ** 62, end - len(body), len(body))
refused("zip64_count.pt", archive(base, before_end=record + b"PK\6\7" + struct.pack("<IQI", 0, end, 1)),
        "4611686018427387904 members, expected at most 200000")
both = Member("a/data/0", FOUR, wide=wide, wide_local=wide_local(16))
padded = struct.pack("<HH", 0x4246, 6) + b"ZZZZZZ"      # as torch aligns its storages
inert("zip64_members.pt", archive(base[:1] + [both], before_end=b""), "good")
inert("zip64_padded.pt", archive(base[:1] + [Member("a/data/0", FOUR, wide=lambda m, o: padded + wide(m, o),
                                                    wide_local=padded + wide_local(16))]), "good")
refused("zip64_offset.pt", archive(base[:1] + [Member("a/data/0", FOUR, wide=lambda m, o: wide(m, 2 ** 63),
                                                      wide_local=wide_local(16))]), "begins outside the data")
refused("zip64_size.pt", archive(base[:1] + [Member("a/data/0", FOUR, size=2 ** 62, stored=2 ** 62, wide=wide,
                                                    wide_local=wide_local(2 ** 62))]), "has 4611686018427387904 bytes, but only")
refused("zip64_local.pt", archive(base[:1] + [Member("a/data/0", FOUR, wide=wide, wide_local=wide_local(17))]),
        "has another size in its own header")
refused("zip64_extra_short.pt", archive(base[:1] + [Member(
    "a/data/0", FOUR, wide=lambda m, o: struct.pack("<HHQ", 1, 8, 16), wide_local=wide_local(16))]),
        "has sizes that contradict each other")
refused("zip64_extra_cut.pt", archive(base[:1] + [Member(
    "a/data/0", FOUR, wide=lambda m, o: struct.pack("<HHQ", 1, 24, 16), wide_local=wide_local(16))]),
        "has sizes that contradict each other")
record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2, 2, end - len(body), len(body))
inert("zip64_end.pt", archive(base, count=0xffff, length=0xffffffff, begin=0xffffffff,
                              before_end=record + b"PK\6\7" + struct.pack("<IQI", 0, end, 1)), "good")
refused("zip_name_bytes.pt", archive(base + [Member(b"a/\xff", b"")]), "the name of a member is not UTF-8")
refused("zip_two_pickles.pt", archive(base + [Member("b/data.pkl", pkl)]), "more than one data.pkl")
unsupported("zip_no_pickle.pt", archive([Member("a/other", pkl)]), "a zip archive without a data.pkl")
unsupported("zip_big_endian.pt", archive(base + [Member("a/byteorder", b"big")]), "its byte order is not little")
unsupported("zip_program.pt", archive(base + [Member("a/constants.pkl", pkl)]), "a TorchScript program, expected tensors")
inert("zip_comment.pt", whole[:-2] + struct.pack("<H", 5) + b"hello", "good")
inert("zip_strange_members.pt", archive(base + [Member("../../etc/cron.d/x", b"harm"), Member("/abs", b"harm")]), "good")

# ---- the legacy form ----

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."


def legacy(value, keys=("0",), stores=None, version=1001, little=b"\x88", magic=MAGIC, after=b""):
    system = dict_of((text("protocol_version"), number(1001)), (text("little_endian"), little))
    data = magic + pickled(number(version)) + pickled(system) + pickled(value)
    data += pickled(b"](" + b"".join(map(text, keys)) + b"e")
    return data + (struct.pack("<q", 4) + FOUR if stores is None else stores) + after


inert("legacy_call.pt", legacy(dict_of((text("x"), call("os", "system", harm)), good)), "good")
inert("legacy_source.pt", legacy(dict_of(
    (text("x"), b"(" + text("module") + name_of("os", "system") + text("/etc/passwd") + text("import os") + b"tQ)R"), good)),
    "good")
inert("legacy_parameters.pt", legacy(dict_of((text("x"), b"(" + text("module") +
    name_of("torch.nn.modules.container", "ParameterDict") + text("file.py") + text("class ParameterDict") + b"tQ)\x81}" +
    text("_parameters") + dict_of((text("*"), tensor())) + b"sb"))), "x.*")
unsupported("legacy_big_endian.pt", legacy(dict_of(good), little=b"\x89"), "its byte order is not little")
unsupported("legacy_no_order.pt", legacy(dict_of(good), little=number(1)), "its byte order is not little")
refused("legacy_version.pt", legacy(dict_of(good), version=7), "its version is not 1001")
refused("legacy_no_storage.pt", legacy(dict_of(good), stores=b""), "it ends before its last storage")
refused("legacy_cut.pt", legacy(dict_of(good))[:-1], 'storage "0" of 4 elements of F32, but 15 bytes are left')
refused("legacy_longer.pt", legacy(dict_of(good), after=b"x"), "bytes follow its last storage")
refused("legacy_count.pt", legacy(dict_of(good), stores=struct.pack("<q", 2 ** 62)),
        'storage "0" has 4611686018427387904 elements, but 4 are promised')
refused("legacy_count_agreed.pt", legacy(dict_of((text("t"), tensor(storage(count=2 ** 62)))),
                                         stores=struct.pack("<q", 2 ** 62)), 'storage "0" of 4611686018427387904 elements')
refused("legacy_stranger.pt", legacy(dict_of(good), keys=("0", "1")), "a storage follows that no tensor mentions")
refused("legacy_twice.pt", legacy(dict_of(good), keys=("0", "0")), 'storage "0" is there twice')
refused("legacy_unlisted.pt", legacy(dict_of(good), keys=(), stores=b""), 'storage "0" is not in the file')
refused("legacy_two_types.pt", legacy(dict_of(good, (text("i"), tensor(storage(kind="IntStorage"))))),
        'storage "0" is mentioned with two types or sizes')
unsupported("legacy_view.pt", legacy(dict_of((text("t"), tensor(
    b"(" + text("storage") + name_of("torch", "FloatStorage") + text("0") + text("cpu") + number(4) + ints(1, 2) + b"tQ")))),
    "a storage that is a part of another")
unsupported("bare.pt", pickled(dict_of((text("a"), number(1)))), "a pickle that torch.save did not write")
unsupported("bare_call.pt", pickled(call("os", "system", harm)), "a pickle that torch.save did not write")

with open(os.path.join(OUT, "expected.json"), "w", encoding="utf-8") as f:
    json.dump(expected, f, indent=1, sort_keys=True)
    f.write("\n")
for name in os.listdir(OUT):
    os.chmod(os.path.join(OUT, name), 0o644)
print(len(expected), "files")
