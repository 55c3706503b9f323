//! Output and exit code of the command; one file per case in `tests/cli`.

#[test]
fn commands_print_what_their_files_say() {
    trycmd::TestCases::new().case("tests/cli/*.toml");
}
