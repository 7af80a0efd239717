/*
 * Imported first. zod would try whether it may compile code (`new Function`), which the page's Content-Security-Policy
 * forbids and reports; this setting, read before its first schema is used, keeps it from trying.
 */
(globalThis as { __zod_globalConfig?: { jitless: boolean } }).__zod_globalConfig = { jitless: true };

export {};
