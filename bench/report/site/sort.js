"use strict";
// Makes the heads of a table's columns buttons that sort it. Cells sort by `data-key` or their text; what is unknown comes last.
const sortable = (table, column = -1) => {
  const heads = [...table.tHead.rows[0].cells];
  let down = false;

  function sort() {
    heads.forEach((head, i) => head.setAttribute("aria-sort", i !== column ? "none" : down ? "descending" : "ascending"));
    if (column < 0) return;
    const key = (row) => row.cells[column].dataset.key ?? row.cells[column].textContent;
    const numbers = heads[column].hasAttribute("data-number");
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = numbers ? x - y : x < y ? -1 : x > y ? 1 : 0;
      return down ? -order : order;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  }

  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      down = column === i && !down;
      column = i;
      sort();
    });
  });
  sort();
  return sort; // for tables whose rows change
};
