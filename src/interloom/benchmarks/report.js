// A click on a column's head sorts its table: numbers largest first, words from A; once more turns it round.
const number = (text) => {
  const found = text.replace("−", "-").match(/^[+-]?\d+(\.\d+)?/);
  return found ? parseFloat(found[0]) : null;
};
function sort(head) {
  const heads = [...head.parentNode.children];
  const column = heads.indexOf(head);
  const body = head.closest("table").tBodies[0];
  const text = (row) => row.cells[column].textContent.trim();
  const numeric = [...body.rows].some((row) => number(text(row)) !== null);
  const before = head.getAttribute("aria-sort");
  const down = before ? before === "ascending" : numeric;
  const rows = [...body.rows].map((row) => [number(text(row)), text(row), row]);
  rows.sort(([x, one], [y, other]) => {
    if (!numeric) return one.localeCompare(other) * (down ? -1 : 1);
    if (x === null || y === null) return (x === null) - (y === null); // what has no number comes last
    return (x - y) * (down ? -1 : 1);
  });
  rows.forEach(([, , row]) => body.append(row));
  heads.forEach((one) => one.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
}
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.onclick = () => sort(head);
  head.onkeydown = (event) => event.key === "Enter" && sort(head);
}
