// Who looks at the page, and what they may: known to every page through a context.
import { createContext, useContext } from "./html.js";

export const WhoContext = createContext(null);

/** `{name, role, totp, change, member, federation, deveuis, relogin, refresh}`; `change` says whether buttons that change are shown. */
export const useWho = () => useContext(WhoContext);
