// What a page has of the real client: one function that the test calls with a specification.
import { perform } from "./calls.mjs";

globalThis.perform = perform;
