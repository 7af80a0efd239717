/*
 * Runs before any module. zod would try whether it may compile code (`new Function`), which the page's
 * Content-Security-Policy forbids and reports; this setting, read when its first schema is made, keeps it from trying. The
 * file is cached for a year: with its content its name changes.
 */
globalThis.__zod_globalConfig = { jitless: true };
