// form[data-switch]: ticking the switch leads to the preview; the tick itself changes nothing, so it is taken back.
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-switch]");
  if (!form) return;
  event.target.checked = !event.target.checked;
  location.assign(form.action);
});
