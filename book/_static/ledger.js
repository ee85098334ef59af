// The ledger's table: sort by a click on a heading, filter by text, chapter and kind. Without it the table stands whole.
(() => {
  const table = document.getElementById("ledger-claims");
  const controls = document.querySelector(".ledger-controls");
  if (!table || !controls) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const { find, chapter, kind, shown } = controls.elements;

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden =
        !words.every((word) => text.includes(word)) ||
        (chapter.value && row.dataset.chapter !== chapter.value) ||
        (kind.value && row.dataset.kind !== kind.value);
      count += !row.hidden;
    }
    shown.textContent = `${count} of ${rows.length} claims`;
  };

  const compare = (a, b) => {
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // what is missing comes last
    const [x, y] = [Number(a), Number(b)];
    return a !== "" && b !== "" && !isNaN(x) && !isNaN(y) ? x - y : a.localeCompare(b);
  };

  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.key;
      const missing = (row) => key(row) === undefined;
      const order = (a, b) => {
        const by = compare(key(a), key(b));
        return falling && !missing(a) && !missing(b) ? -by : by;
      };
      body.append(...[...rows].sort(order));
    });
  });

  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  filter();
})();
