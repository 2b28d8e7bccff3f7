// Runs before the first paint, so that the other theme does not flash. For this it must not be a module.
try {
  const theme = localStorage.getItem("inspector.theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // The browser saves nothing: the page follows the system's theme.
}
