"use strict";
// Draws the charts of the page, again when the colour scheme changes, and sorts its tables.
(() => {
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map();
  let run = 0;

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const c = (name) => style.getPropertyValue(name).trim();
    const font = style.fontFamily;
    const text = { labelFont: font, titleFont: font, labelColor: c("--soft"), titleColor: c("--soft") };
    return {
      background: "transparent",
      font,
      padding: { left: 2, right: 6, top: 2, bottom: 2 },
      view: { stroke: null },
      axis: {
        ...text, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12, titlePadding: 8, labelPadding: 6,
        gridColor: c("--grid"), domainColor: c("--rule"), tickColor: c("--rule"),
      },
      legend: { ...text, titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 12 },
      scale: { bandPaddingInner: 0.08, bandPaddingOuter: 0.04 },
      range: {
        category: [1, 2, 3, 4].map((i) => c(`--type-${i}`)),
        heatmap: [1, 2, 3, 4, 5].map((i) => c(`--heat-${i}`)),
        ordinal: ["--good", "--bad", "--warn", "--soft", "--accent"].map(c), // what was decided
      },
      style: {
        absent: { color: c("--absent") },
        single: { color: c("--accent") },
        range: { color: c("--accent"), strokeWidth: 3, strokeOpacity: 0.45, strokeCap: "round" },
        label: { color: c("--ink"), font, fontSize: 12 },
        thread: { color: c("--soft"), strokeOpacity: 0.6, strokeWidth: 1.5 },
        reference: { color: c("--soft"), strokeDash: [4, 4], strokeWidth: 1 },
      },
    };
  }

  async function draw(box) {
    const spec = JSON.parse(document.getElementById(box.dataset.spec).textContent);
    drawn.get(box)?.finalize();
    try {
      const result = await window.vegaEmbed(box, spec, {
        mode: "vega-lite",
        renderer: box.dataset.renderer,
        ast: true, // the expression interpreter: the page's policy forbids eval
        actions: false,
        defaultStyle: false,
        config: theme(),
        tooltip: { disableDefaultStyle: true, theme: "page" },
      });
      drawn.set(box, result);
      box.dataset.state = "drawn";
    } catch (error) {
      box.dataset.state = "failed";
      box.textContent = `This chart could not be drawn: ${error.message}`;
    }
  }

  async function drawAll(mine) {
    for (const box of document.querySelectorAll(".chart")) {
      if (mine !== run) return;
      await draw(box);
    }
    document.documentElement.dataset.charts = scheme.matches ? "dark" : "light";
  }

  // One after the other: two drawings at once would meet in one box.
  let last = Promise.resolve();
  function redraw() {
    const mine = ++run;
    last = last.then(() => drawAll(mine));
  }

  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.v;
    return value === undefined ? cell.textContent : Number(value);
  };

  function compare(a, b) {
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return typeof a === "number" ? b - a : a.localeCompare(b, "en", { numeric: true });
  }

  function sortBy(table, heading) {
    const column = heading.cellIndex;
    const numeric = heading.classList.contains("n");
    const first = numeric ? "descending" : "ascending";
    const again = heading.getAttribute("aria-sort") === first;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    const other = numeric ? "ascending" : "descending";
    heading.setAttribute("aria-sort", again ? other : first);
    const absent = (row) => numeric && row.cells[column].dataset.v === undefined;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      if (absent(a) || absent(b)) return absent(a) - absent(b);
      return compare(key(a, column), key(b, column)) * (again ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const heading of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      button.addEventListener("click", () => sortBy(table, heading));
      heading.append(button);
    }
  }

  scheme.addEventListener("change", redraw);
  redraw();
})();
