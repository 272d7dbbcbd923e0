"use strict";
document.querySelectorAll("table.sortable").forEach((table) => sortable(table));
