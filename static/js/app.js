// What every page loads. A page that needs more adds its own module in {% block scripts %}.
import "./theme.js";
import "./dialog.js";
import "./reveal.js";
import "./copy.js";
import "./menu.js";
import "./sidebar.js";
