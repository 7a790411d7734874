package dashboard

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func bundleOf(modules map[string]string) string {
	contents := map[string][]byte{}
	for name, text := range modules {
		contents[name] = []byte(text)
	}
	return string(bundled(contents))
}

func TestModulesAreJoinedInTheOrderOfTheirImports(t *testing.T) {
	t.Parallel()
	require.Equal(t, `import * as m3 from "./vendor/x.js";
// lib/b.js
const m2 = (() => {
const {one: uno} = m3;
const two = uno + 1;
async function three() {}


return {zwei: two, two, three};
})();
// lib/a.js
const m4 = (() => {
const {two: dos} = m2;

return {dos};
})();
// main.js
const m1 = (() => {
const {two,
three} = m2;
const {dos: zwei} = m4;
console.log(two, three, zwei);

return {};
})();
`, bundleOf(map[string]string{
		"main.js":     "import {two,\nthree} from \"./lib/b.js\";\nimport {dos as zwei} from \"./lib/a.js\";\nconsole.log(two, three, zwei);\n",
		"lib/a.js":    "export {two as dos} from \"./b.js\";\n",
		"lib/b.js":    "import {one as uno} from \"../vendor/x.js\";\nexport const two = uno + 1;\nexport async function three() {}\nexport {two as zwei};\n",
		"vendor/x.js": "export const one = 1;\n",
	}))
}

func TestModulesOfAnotherFormAreRefused(t *testing.T) {
	t.Parallel()
	for problem, modules := range map[string]map[string]string{
		"circle, through main.js":                    {"main.js": `import {a} from "./a.js";`, "a.js": `import {b} from "./main.js";`},
		"imports a.js, which is missing":             {"main.js": `import {a} from "./a.js";`},
		"can't be bundled: export default 1;":        {"main.js": "export default 1;"},
		"can't be bundled: export let a = 1;":        {"main.js": "export let a = 1;"},
		"can't be bundled: import \"./a.js\";":       {"main.js": `import "./a.js";`},
		"can't be bundled: import * as a from \"x\"": {"main.js": `import * as a from "x";`},
	} {
		require.PanicsWithValue(t, problem, func() {
			defer func() {
				text, _ := recover().(string)
				require.Contains(t, text, problem)
				panic(problem)
			}()
			bundleOf(modules)
		})
	}
}
