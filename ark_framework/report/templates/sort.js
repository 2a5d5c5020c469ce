"use strict";
// Every table with the class "sort": its headers become buttons; rows of tbody move, tfoot stays.
for (const table of document.querySelectorAll("table.sort")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const text = (row, column) => row.cells[column].textContent.trim();
  const number = (told) => {
    const found = told.replace(/,/g, "").match(/^[+<]?-?\d+(\.\d+)?/);
    return found ? parseFloat(found[0].replace(/^[+<]/, "")) : NaN;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const rows = [...body.rows].map((row) => [row, text(row, column)]);
      const known = rows.filter(([, told]) => told !== "-" && told !== "");
      const numeric = known.every(([, told]) => !Number.isNaN(number(told)));
      const order = ([, a], [, b]) => {
        if (!numeric) return sign * a.localeCompare(b, "en", { numeric: true });
        const [one, other] = [number(a), number(b)];
        if (Number.isNaN(one) || Number.isNaN(other)) return Number.isNaN(one) - Number.isNaN(other);
        return sign * (one - other);
      };
      body.append(...rows.sort(order).map(([row]) => row));
      heads.forEach((each) => each.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    });
  });
}
// What is folded is printed, too.
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details")) each.open = true;
});
