"""PDFs as their makers write them: reportlab, pypdf, pdfium, Pillow, and hands; each says the sentence of `SAYS`."""

import io
import random
import zlib
from collections.abc import Callable, Mapping

import pypdf
import pypdfium2
from PIL import Image, ImageDraw
from reportlab.lib.pagesizes import A4
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate, Paragraph
from tests.unit.ingest.raw_pdf import HELVETICA, RawPdf, a_page, any_script, lines

from eventlog.events import DocumentRejectionReason as Reason

TITLE = "Tidal wetlands store carbon for centuries"
SAYS = "Marsh sediments hold most of it below one metre"
TEXT = "\n".join(
    [
        TITLE, "Ada Lovelace, Grace Hopper", "Abstract",
        "We measured how much carbon the soils of forty tidal wetlands hold, and for how long it has been there.",
        f"{SAYS}, where it is older than",
        "a thousand years. Drained wetlands lose a third of it within twenty years of the first ditch.",
        "1 Introduction", "Wetlands cover a small part of the land and store a large part of its carbon.",
        "2 Methods", "Cores of three metres were taken by hand and dated by radiocarbon.",
        "References", "Smith 2001. Salt marshes. doi:10.1000/marsh.1 and doi:10.1000/marsh.2",
    ]
)  # fmt: skip


def _canvas(text: str = TEXT, *, font: str = "Helvetica", **options: object) -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4, **options)
    canvas.setFont(font, 10)
    for number, line in enumerate(text.split("\n")):
        canvas.drawString(50, 780 - 14 * number, line)
    canvas.showPage()
    canvas.save()
    return out.getvalue()


def canvas_with_metadata() -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out)
    canvas.setTitle("Carbon in tidal wetlands: a survey")
    canvas.setAuthor("Lovelace, Ada; Hopper, Grace")
    canvas.setSubject("doi:10.1000/Wetlands.2024.7")
    for number, line in enumerate(TEXT.split("\n")):
        canvas.drawString(50, 780 - 14 * number, line)
    canvas.save()
    return out.getvalue()


def _platypus(columns: int) -> bytes:
    out = io.BytesIO()
    width = 480 // columns
    frames = [Frame(50 + column * (width + 15), 60, width, 700) for column in range(columns)]
    document = BaseDocTemplate(out, pagesize=A4, title=TITLE)
    document.addPageTemplates([PageTemplate(frames=frames)])
    styles = getSampleStyleSheet()
    story = [Paragraph(TITLE, styles["Title"])]
    for heading in ("Introduction", "Methods", "Results", "Conclusion"):
        story.append(Paragraph(heading, styles["Heading1"]))
        story.extend(
            Paragraph(
                f"{SAYS}. " + "The cores were dated by radiocarbon in two laboratories. " * 12,
                styles["BodyText"],
            )
            for _ in range(4)
        )
    document.build(story)
    return out.getvalue()


def canvas_rotated() -> bytes:
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=A4)
    canvas.setPageRotation(90)
    canvas.rotate(90)
    for number, line in enumerate(TEXT.split("\n")):
        canvas.drawString(50, -50 - 14 * number, line)
    canvas.save()
    return out.getvalue()


def _cid(font: str, text: str) -> bytes:
    pdfmetrics.registerFont(UnicodeCIDFont(font))
    return _canvas(text, font=font)


CHINESE = "潮汐湿地储存碳达数百年之久\n摘要\n我们测量了四十个潮汐湿地的土壤碳含量\u3002\n其中大部分位于一米以下的深处\u3002\n排水后的湿地在二十年内失去三分之一\u3002"
JAPANESE = "塩性湿地は何世紀にもわたって炭素を蓄える\n私たちは四十か所の土壌炭素量を測定した。\nその大部分は一メートルより深い所にある。"
KOREAN = "염습지는 수 세기 동안 탄소를 저장한다\n우리는 마흔 곳의 습지에서 토양 탄소량을 측정하였다.\n대부분은 일 미터 아래에 있다."


def _rewritten(change: Callable[[pypdf.PdfWriter], None], source: bytes | None = None) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(source or _canvas()))
    change(writer)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def pypdf_merged() -> bytes:
    writer = pypdf.PdfWriter()
    for part in (_canvas(), _platypus(1)):
        writer.append(io.BytesIO(part))
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def pdfium_saved() -> bytes:
    source = pypdfium2.PdfDocument(_platypus(2))
    made = pypdfium2.PdfDocument.new()
    made.import_pages(source)
    out = io.BytesIO()
    made.save(out)
    made.close()
    source.close()
    return out.getvalue()


def raw_filters() -> bytes:
    """PDF 1.2 with its old filters, one after the other."""
    pdf = RawPdf("1.2")
    data = zlib.compress(lines(TEXT)).hex().encode() + b">"
    content = pdf.add(
        b"<< /Length %d /Filter [/ASCIIHexDecode /FlateDecode] >>\nstream\n%b\nendstream" % (len(data), data)
    )
    pdf.pages([content], HELVETICA)
    return pdf.classic()


def raw_incremental() -> bytes:
    """The page was first empty; its contents came with a second save."""
    pdf = a_page("")
    first = pdf.classic()
    old_start = first.rindex(b"startxref\n") + len(b"startxref\n")
    previous = int(first[old_start:].split()[0])
    body = lines(TEXT)
    at = len(first)
    out = first + b"1 0 obj\n<< /Length %d >>\nstream\n%b\nendstream\nendobj\n" % (len(body), body)
    start = len(out)
    out += b"xref\n1 1\n%010d 00000 n \n" % at
    return out + b"trailer\n<< /Root %d 0 R /Size %d /Prev %d >>\nstartxref\n%d\n%%%%EOF\n" % (
        pdf.root, len(pdf.objects) + 1, previous, start,
    )  # fmt: skip


def raw_without_table() -> bytes:
    """The offset of the table is wrong, as after a transfer that changed line ends."""
    data = a_page(TEXT).classic()
    at = data.rindex(b"startxref")
    return data[:at] + b"startxref\n99\n%%EOF\n"


def raw_form() -> bytes:
    """The text stands in a form that the page draws."""
    pdf = RawPdf()
    font = pdf.add(HELVETICA)
    form = pdf.stream(
        lines(TEXT),
        f"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /Font << /F1 {font} 0 R >> >>",
    )
    pdf.pages([pdf.stream(b"/X1 Do")], HELVETICA, resources=f"/XObject << /X1 {form} 0 R >>")
    return pdf.classic()


def raw_nested_tree() -> bytes:
    """Pages in a tree of trees; fonts and size are inherited from its root."""
    pdf = RawPdf()
    content = pdf.stream(lines(TEXT))
    font = pdf.add(HELVETICA)
    pdf.add("<< /Type /Page /Parent 4 0 R /Contents 1 0 R >>")
    pdf.add("<< /Type /Pages /Parent 5 0 R /Count 1 /Kids [3 0 R] >>")
    pdf.add(
        f"<< /Type /Pages /Count 1 /Kids [4 0 R] /MediaBox [0 0 612 792] /Resources << /Font << /F1 {font} 0 R >> >> >>"
    )
    assert content == 1
    pdf.root = pdf.add("<< /Type /Catalog /Pages 5 0 R >>")
    return pdf.classic()


def raw_latex() -> bytes:
    """Ligatures as one glyph, words divided at line ends, no blanks but gaps, as TeX sets it."""
    text = [
        [*"Di", "ffi", *"cult ", "fl", *"ows in tidal wetlands"], [*"Ada Lovelace"], [*"Abstract"],
        [*"We measured how e", "ffi", *"cient the soils of forty wetlands are, with a new car-"],
        [*"bon balance and an o", "ff", *"set for ", "fi", *"ne roots. " + SAYS + "."],
        [*"1 Introduction"], [*"Wetlands cover a small part of the land and store a large part of its carbon."],
    ]  # fmt: skip
    return any_script(text)


def raw_hebrew() -> bytes:
    """Right to left: glyphs stand in the order in which they are seen."""
    logical = [
        "ביצות מלח אוגרות פחמן במשך מאות שנים",
        "מדדנו כמה פחמן אוצרות הקרקעות של ארבעים ביצות ולמשך כמה זמן הוא נמצא שם",
    ] * 2
    return any_script([list(reversed(line)) for line in logical])


def raw_devanagari() -> bytes:
    line = "ज्वारीय आर्द्रभूमि सदियों तक कार्बन जमा रखती है और मिट्टी में गहराई तक रहती है"
    return any_script([list(line)] * 3)


def raw_odd_characters() -> bytes:
    """What a font may claim to mean: a lone surrogate, NUL, an emoji, a letter with its mark apart."""
    text = [["\ud800", "\x00", "😀", "e\u0301", *TITLE], *([list(SAYS)] * 3)]
    return any_script(text)


def raw_pages(count: int) -> bytes:
    pdf = RawPdf()
    content = pdf.stream(lines(TEXT))
    pdf.pages([content] * count, HELVETICA)
    return pdf.classic()


def raw_bomb() -> bytes:
    """A page whose content unpacks to more than the parser may have."""
    packer = zlib.compressobj(9)
    piece = lines(TEXT) + b"\n" * 1_000_000
    data = b"".join(packer.compress(piece) for _ in range(300)) + packer.flush()
    pdf = RawPdf()
    pdf.pages([pdf.stream(data, filter_="FlateDecode")], HELVETICA)
    return pdf.classic()


def raw_nested_arrays() -> bytes:
    pdf = RawPdf()
    pdf.pages(
        [pdf.stream(b"[" * 300_000 + lines(TEXT))], HELVETICA, page="/Extra " + "[" * 100_000 + "]" * 100_000
    )
    return pdf.classic()


def raw_endless_tree() -> bytes:
    """A tree of pages that contains itself."""
    pdf = RawPdf()
    pdf.add("<< /Type /Pages /Count 1 /Kids [1 0 R] /Parent 1 0 R >>")
    pdf.root = pdf.add("<< /Type /Catalog /Pages 1 0 R >>")
    return pdf.classic()


def raw_no_pages() -> bytes:
    pdf = RawPdf()
    pdf.pages([], HELVETICA)
    return pdf.classic()


def raw_unknown_encryption() -> bytes:
    data = a_page(TEXT).classic()
    return data.replace(
        b"trailer\n<< ", b"trailer\n<< /Encrypt << /Filter /Strange.Vendor /V 9 >> /ID [<00> <00>] "
    )


def scanned() -> bytes:
    """A picture of a page, as a scanner makes it."""
    image = Image.new("1", (1240, 1754), 1)
    ImageDraw.Draw(image).text((100, 100), TITLE)
    out = io.BytesIO()
    image.save(out, "PDF")
    return out.getvalue()


def noise() -> bytes:
    return b"%PDF-1.7\n" + random.Random(7).randbytes(50_000)


def _saves(algorithm: str, password: str) -> bytes:
    return _rewritten(lambda writer: writer.encrypt(password, "owner", algorithm=algorithm))


def _locked(password: str, strength: int) -> bytes:
    return _canvas(encrypt=StandardEncryption(password, ownerPassword="owner", strength=strength))


IMPORTED: Mapping[str, Callable[[], bytes]] = {
    "reportlab": _canvas,
    "reportlab uncompressed": lambda: _canvas(pageCompression=0),
    "reportlab metadata": canvas_with_metadata,
    "reportlab flowing": lambda: _platypus(1),
    "reportlab two columns": lambda: _platypus(2),
    "reportlab rotated": canvas_rotated,
    "reportlab owner password": lambda: _locked("", 128),
    "reportlab chinese": lambda: _cid("STSong-Light", CHINESE),
    "reportlab japanese": lambda: _cid("HeiseiMin-W3", JAPANESE),
    "reportlab korean": lambda: _cid("HYSMyeongJo-Medium", KOREAN),
    "pypdf": lambda: _rewritten(lambda _: None),
    "pypdf compressed": lambda: _rewritten(lambda w: [p.compress_content_streams() for p in w.pages]),
    "pypdf owner password": lambda: _saves("AES-256", ""),
    "pypdf merged": pypdf_merged,
    "pdfium": pdfium_saved,
    "pdf 1.2": lambda: a_page(TEXT, "1.2").classic(),
    "pdf 1.2 filters": raw_filters,
    "pdf 1.7 object streams": lambda: a_page(TEXT).packed(),
    "line ends of old macs": lambda: a_page(TEXT).classic(newline=b"\r"),
    "junk before its head": lambda: a_page(TEXT).classic(prefix=b"HTTP/1.1 200 OK\r\n\r\n" * 20),
    "unicode metadata": lambda: a_page(
        TEXT, Title="Gezeiten \u2014 潮汐", Author="Ada Lovelace and Grace Hopper"
    ).classic(),
    "saved twice": raw_incremental,
    "wrong table": raw_without_table,
    "text in a form": raw_form,
    "tree of trees": raw_nested_tree,
    "latex": raw_latex,
    "hebrew": raw_hebrew,
    "devanagari": raw_devanagari,
    "odd characters": raw_odd_characters,
    "1999 pages": lambda: raw_pages(1_999),
}
REJECTED: Mapping[str, tuple[Callable[[], bytes], Reason]] = {
    "reportlab password 40": (lambda: _locked("user", 40), Reason.PDF_ENCRYPTED),
    "reportlab password 128": (lambda: _locked("user", 128), Reason.PDF_ENCRYPTED),
    "pypdf password": (lambda: _saves("AES-256", "user"), Reason.PDF_ENCRYPTED),
    "unknown encryption": (raw_unknown_encryption, Reason.PDF_ENCRYPTED),
    "half": (lambda: _platypus(2)[:2_500], Reason.PDF_DAMAGED),
    "head alone": (lambda: b"%PDF-1.4\n", Reason.PDF_DAMAGED),
    "noise": (noise, Reason.PDF_DAMAGED),
    "a web page": (lambda: b"<html><title>Please log in</title></html>", Reason.PDF_DAMAGED),
    "endless tree": (raw_endless_tree, Reason.PDF_DAMAGED),
    "nothing": (lambda: b"", Reason.PDF_EMPTY),
    "no pages": (raw_no_pages, Reason.PDF_EMPTY),
    "scanned": (scanned, Reason.PDF_NO_TEXT),
    "nested arrays": (raw_nested_arrays, Reason.PDF_NO_TEXT),
    "3000 pages": (lambda: raw_pages(3_000), Reason.PDF_TOO_MANY_PAGES),
    "bomb": (raw_bomb, Reason.PARSER_OUT_OF_MEMORY),
}
