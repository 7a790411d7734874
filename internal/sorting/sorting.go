// Package sorting sorts slices of any type by one piece of code.
//
// slices.SortFunc and slices.SortStableFunc are compiled anew for each type of element, which makes the program 8 to
// 24 kB larger. sort.SliceStable moves elements by reflection, and is compiled once.
package sorting

import "sort"

// By sorts s, and keeps the order of elements that compare says are equal. It returns s.
func By[T any](s []T, compare func(a, b T) int) []T {
	sort.SliceStable(s, func(i, j int) bool { return compare(s[i], s[j]) < 0 })
	return s
}
