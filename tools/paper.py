"""Printed pages, one or many, as one document: numbered through, and with links that lead to a page of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urldefrag

from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, NullObject

Places = dict[str, tuple[int, float]]


@dataclass(frozen=True)
class Printed:
    """A page of the book on paper: its name, as in `chapters/starc`, and what the browser made of it."""

    name: str
    pdf: PdfReader


def joined(printed: Sequence[Printed], address: str, numbers: PdfReader) -> PdfWriter:
    """One document of all pages, with numbers at their feet and links that lead within it.

    Args:
        printed: pages in their order.
        address: of the server they were printed from, which no reader can reach.
        numbers: as many sheets with nothing but a number each.
    """
    writer, starts = PdfWriter(), dict[str, int]()
    for page in printed:
        starts[page.name] = len(writer.pages)
        writer.append(page.pdf, import_outline=True)
    places = {page.name: _places(page.pdf, starts[page.name]) for page in printed}
    for page in printed:
        for i in range(len(page.pdf.pages)):
            sheet = writer.pages[starts[page.name] + i]
            links = [_lead(writer, link.get_object(), page.name, address, places) for link in sheet.get("/Annots", ())]
            sheet[NameObject("/Annots")] = ArrayObject(link.indirect_reference for link in links if link is not None)
    for sheet, number in zip(writer.pages, numbers.pages, strict=True):
        sheet.merge_page(number)
        sheet.compress_content_streams()
    writer.compress_identical_objects()
    return writer


def _places(pdf: PdfReader, start: int) -> Places:
    """The named places of a page, and "" for its beginning: page in the book, and height on it."""
    named = {
        name.lstrip("/"): (start + (pdf.get_destination_page_number(place) or 0), float(place.top or 0))
        for name, place in pdf.named_destinations.items()
    }
    return {**named, "": (start, float(pdf.pages[0].mediabox.top))}


def _lead(
    writer: PdfWriter, link: DictionaryObject, name: str, address: str, places: Mapping[str, Places]
) -> DictionaryObject | None:
    """The link with the place it leads to said explicitly; None if that is not in this document."""
    uri = str(link.get("/A", {}).get("/URI", ""))
    if "/Dest" in link:
        place = places[name].get(str(link["/Dest"]).lstrip("/"))
    elif uri.startswith(address):
        path, anchor = urldefrag(uri.removeprefix(address))
        there = places.get(path.removesuffix(".html"), {})
        place = there.get(anchor, there.get(""))
    else:
        return link
    if place is None:
        return None
    sheet = writer.pages[place[0]].indirect_reference
    link.pop("/A", None)
    link[NameObject("/Dest")] = ArrayObject(
        [sheet, NameObject("/XYZ"), NullObject(), FloatObject(place[1]), NullObject()]
    )
    return link
