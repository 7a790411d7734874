// The types are those of the package: see scripts/types.
export { default } from "htm";
