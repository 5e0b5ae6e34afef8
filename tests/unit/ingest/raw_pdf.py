"""PDFs written byte by byte, as programs of other times and habits write them."""

import zlib
from collections.abc import Sequence


class RawPdf:
    """Objects in order of their numbers, from 1; `classic` and `packed` are two ways of writing them down."""

    def __init__(self, version: str = "1.4") -> None:
        self.version = version
        self.objects: list[bytes] = []
        self.info = 0
        self.root = 0

    def add(self, body: bytes | str) -> int:
        self.objects.append(body if isinstance(body, bytes) else body.encode("latin-1"))
        return len(self.objects)

    def stream(self, data: bytes, entries: str = "", *, filter_: str = "") -> int:
        named = f"/Filter /{filter_}" if filter_ else ""
        head = f"<< /Length {len(data)} {named} {entries} >>\nstream\n".encode()
        return self.add(head + data + b"\nendstream")

    def pages(self, contents: Sequence[int], font: str, *, page: str = "", resources: str = "") -> None:
        """The catalog over a page for each content stream; `font` is the body of the font `/F1`."""
        font_no = self.add(font)
        tree = len(self.objects) + len(contents) + 1
        kids = [
            self.add(
                f"<< /Type /Page /Parent {tree} 0 R /MediaBox [0 0 612 792] /Contents {content} 0 R "
                f"/Resources << /Font << /F1 {font_no} 0 R >> {resources} >> {page} >>"
            )
            for content in contents
        ]
        self.add(f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(f'{kid} 0 R' for kid in kids)}] >>")
        self.root = self.add(f"<< /Type /Catalog /Pages {tree} 0 R >>")

    def set_info(self, **entries: str) -> None:
        body = " ".join(
            f"/{name} <{('﻿' + text).encode('utf-16-be').hex()}>" for name, text in entries.items()
        )
        self.info = self.add(f"<< {body} >>")

    def _trailer(self) -> str:
        info = f"/Info {self.info} 0 R" if self.info else ""
        return f"/Root {self.root} 0 R {info} /Size {len(self.objects) + 1}"

    def classic(self, *, prefix: bytes = b"", newline: bytes = b"\n") -> bytes:
        """A table of offsets at the end, as everything before PDF 1.5 has it."""
        out = bytearray(prefix + b"%PDF-" + self.version.encode() + newline + b"%\xe2\xe3\xcf\xd3" + newline)
        offsets = []
        for number, body in enumerate(self.objects, start=1):
            offsets.append(len(out) - len(prefix))
            out += b"%d 0 obj%b%b%bendobj%b" % (number, newline, body, newline, newline)
        start = len(out) - len(prefix)
        out += b"xref%b0 %d%b0000000000 65535 f \n" % (newline, len(offsets) + 1, newline)
        out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
        out += b"trailer%b<< %b >>%b" % (newline, self._trailer().encode(), newline)
        return bytes(out + b"startxref%b%d%b%%%%EOF%b" % (newline, start, newline, newline))

    def packed(self) -> bytes:
        """Object streams and a compressed table, as modern programs write."""
        out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        plain = {n: body for n, body in enumerate(self.objects, start=1) if b"\nstream\n" in body}
        inside = [n for n in range(1, len(self.objects) + 1) if n not in plain]
        holder, table = len(self.objects) + 1, len(self.objects) + 2
        bodies = [self.objects[n - 1] for n in inside]
        starts = [sum(len(body) + 1 for body in bodies[:at]) for at in range(len(bodies))]
        index = " ".join(f"{n} {start}" for n, start in zip(inside, starts, strict=True)).encode() + b"\n"
        packed = zlib.compress(index + b"\n".join(bodies))
        plain[holder] = (
            b"<< /Type /ObjStm /N %d /First %d /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream"
            % (len(inside), len(index), len(packed), packed)
        )
        rows = {0: (0, 0, 255)} | {n: (2, holder, at) for at, n in enumerate(inside)}
        for number, body in plain.items():
            rows[number] = (1, len(out), 0)
            out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
        rows[table] = (1, len(out), 0)
        data = zlib.compress(
            b"".join(bytes([a]) + b.to_bytes(4) + bytes([c]) for _, (a, b, c) in sorted(rows.items()))
        )
        trailer = self._trailer().replace(f"/Size {len(self.objects) + 1}", f"/Size {table + 1}").encode()
        start = len(out)
        out += b"%d 0 obj\n<< /Type /XRef /W [1 4 1] %b /Filter /FlateDecode /Length %d >>\nstream\n%b\nendstream\nendobj\n" % (
            table, trailer, len(data), data,
        )  # fmt: skip
        return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)


HELVETICA = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"


def lines(text: str, *, size: int = 11, top: int = 740, left: int = 60) -> bytes:
    """A content stream that sets each line in `/F1`, in WinAnsi."""
    shown = [
        "(" + line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)") + ") Tj T*"
        for line in text.split("\n")
    ]
    return (
        f"BT /F1 {size} Tf {size + 3} TL {left} {top} Td\n".encode()
        + "\n".join(shown).encode("cp1252")
        + b"\nET"
    )


def a_page(text: str, version: str = "1.4", **info: str) -> RawPdf:
    pdf = RawPdf(version)
    pdf.pages([pdf.stream(lines(text))], HELVETICA)
    if info:
        pdf.set_info(**info)
    return pdf


def any_script(glyphs: Sequence[Sequence[str]], *, broken: bytes = b"") -> bytes:
    """Lines of glyphs, each of which stands for one or several characters by the font's `ToUnicode` map alone."""
    kinds = list(dict.fromkeys(glyph for line in glyphs for glyph in line))
    code = {glyph: number for number, glyph in enumerate(kinds, start=1)}
    rows = [f"<{code[g]:04x}> <{g.encode('utf-16-be', 'surrogatepass').hex()}>" for g in kinds]
    blocks = [rows[at : at + 100] for at in range(0, len(rows), 100)]
    mapping = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        "1 begincodespacerange <0000> <ffff> endcodespacerange\n"
        + "\n".join(f"{len(b)} beginbfchar\n" + "\n".join(b) + "\nendbfchar" for b in blocks)
        + "\nendcmap CMapName currentdict /CMap defineresource pop end end"
    )
    pdf = RawPdf("1.5")
    to_unicode = pdf.stream(zlib.compress(mapping.encode()), filter_="FlateDecode")
    descriptor = pdf.add(
        "<< /Type /FontDescriptor /FontName /AAAAAA+Any /Flags 4 /FontBBox [0 -200 1000 900] /ItalicAngle 0 "
        "/Ascent 900 /Descent -200 /CapHeight 700 /StemV 80 >>"
    )
    cid = pdf.add(
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /AAAAAA+Any /DW 600 /CIDToGIDMap /Identity "
        f"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /FontDescriptor {descriptor} 0 R >>"
    )
    font = (
        "<< /Type /Font /Subtype /Type0 /BaseFont /AAAAAA+Any /Encoding /Identity-H "
        f"/DescendantFonts [{cid} 0 R] /ToUnicode {to_unicode} 0 R >>"
    )
    shown = "\n".join("<" + "".join(f"{code[g]:04x}" for g in line) + "> Tj T*" for line in glyphs)
    content = pdf.stream(b"BT /F1 10 Tf 14 TL 40 740 Td\n" + shown.encode() + b"\nET" + broken)
    pdf.pages([content], font)
    return pdf.classic()
