// Package browser tries the dashboard as a person does: in Debian's Chromium, with a real
// PostgreSQL, the whole program, and receivers that fail on demand.
//
// Its tests run where ROWHOOK_TEST_CHROMIUM names a Chromium: scripts/test --browser sets it. Every
// test fails on an error in the console, a violation of the page's policy, a failed request that
// it did not expect, and a request to another host.
package browser
