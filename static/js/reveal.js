// [data-reveal]: show or hide the secret being typed in the input beside the button.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-reveal]");
  if (!button) return;
  const input = button.parentElement.querySelector("input");
  const show = input.type === "password";
  input.type = show ? "text" : "password";
  button.textContent = show ? "Hide" : "Show";
  button.setAttribute("aria-pressed", String(show));
  input.focus();
});

document.addEventListener("reset", (event) => {
  for (const button of event.target.querySelectorAll("[data-reveal][aria-pressed=true]")) {
    button.parentElement.querySelector("input").type = "password";
    button.textContent = "Show";
    button.setAttribute("aria-pressed", "false");
  }
});
