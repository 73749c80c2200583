// [data-dialog-open="id"]: open that <dialog> instead of following the link; [data-dialog-close]: close it.
// The link still works without script, and with a modifier key.
function open(dialog) {
  dialog.showModal();
  const field = dialog.querySelector("[aria-invalid=true]") ?? dialog.querySelector("[data-focus]");
  field?.focus();
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-dialog-open]");
  if (opener && !event.metaKey && !event.ctrlKey && !event.shiftKey) {
    const dialog = document.getElementById(opener.dataset.dialogOpen);
    if (dialog) {
      event.preventDefault();
      open(dialog);
    }
    return;
  }
  const closer = event.target.closest("[data-dialog-close]");
  if (closer) {
    const dialog = closer.closest("dialog");
    if (dialog) {
      event.preventDefault();
      dialog.close();
    }
    return;
  }
  // A press on the backdrop lands on the dialog itself, outside its box.
  if (event.target instanceof HTMLDialogElement) {
    const box = event.target.getBoundingClientRect();
    const inside =
      event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
    if (!inside && !event.target.querySelector("input[data-secret]")?.value) event.target.close();
  }
});

// Whatever was typed is gone once the dialog is closed: a secret does not wait in a hidden form.
document.addEventListener(
  "close",
  (event) => {
    if (!(event.target instanceof HTMLDialogElement)) return;
    for (const form of event.target.querySelectorAll("form[data-forget]")) form.reset();
  },
  true,
);

// An answer with errors replaces the form inside the dialog: put the focus on the first field at fault.
document.addEventListener("htmx:after:swap", () => {
  const field = document.querySelector("dialog[open] [aria-invalid=true]");
  field?.focus();
});
