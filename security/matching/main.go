// Asks an OpenVEX document as scanners do, with the library that Trivy, Grype and vexctl match with:
// matching DOCUMENT VULNERABILITY PRODUCT [SUBCOMPONENT...] prints the status and justification of each statement that applies.
package main

import (
	"fmt"
	"os"

	"github.com/openvex/go-vex/pkg/vex"
)

func main() {
	document, err := vex.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, statement := range document.Matches(os.Args[2], os.Args[3], os.Args[4:]) {
		fmt.Println(statement.Status, statement.Justification)
	}
}
