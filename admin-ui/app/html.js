// What every page is written with: Preact's elements, htm's templates, hooks. Text in templates is always text.
import { h, render, Fragment, createContext } from "../vendor/preact.mjs";
import htm from "../vendor/htm.mjs";

export const html = htm.bind(h);
export { h, render, Fragment, createContext };
export { useState, useEffect, useRef, useMemo, useCallback, useContext, useId, useLayoutEffect, useErrorBoundary } from "../vendor/hooks.mjs";
