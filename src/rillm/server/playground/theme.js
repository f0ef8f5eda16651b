// Runs before anything is painted, so that a page kept dark does not flash white.
// The style sheet follows the system until `data-theme` says otherwise.
(() => {
  const theme = localStorage.getItem("rillm:theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
