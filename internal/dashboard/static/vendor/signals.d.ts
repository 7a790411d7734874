// The types are those of the package: see scripts/types.
export * from "@preact/signals";
