// A click on a column's head sorts the table by it, largest first.
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.onclick = () => {
    const column = [...head.parentNode.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const number = (row) => parseFloat(row.cells[column].textContent) || 0;
    [...body.rows].sort((a, b) => number(b) - number(a)).forEach((row) => body.append(row));
  };
}
