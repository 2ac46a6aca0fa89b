fn main() {
    std::fs::write(
        "/work/main/docs/reference/language.md",
        kapell_model::reference_markdown(),
    )
    .unwrap();
    std::fs::write(
        "/work/main/docs/reference/workflow.schema.json",
        serde_json::to_string_pretty(&kapell_model::json_schema()).unwrap() + "\n",
    )
    .unwrap();
    let mut s = String::from(
        "workflow: w\nparams: {x: {type: int, default: 1}}\nenv: {BASE: \"${{ params.x }}\"}\nsteps:\n",
    );
    for i in 0..10000 {
        s.push_str(&format!("  step_{i}:\n{}    shell: echo {i} and more text\n    env: {{ A: \"${{{{ params.x + {i} }}}}\", B: \"${{{{ steps.step_{}.output }}}}\" }}\n", if i>0 {format!("    needs: [step_{}]\n", i-1)} else {String::new()}, i/2));
    }
    let s = s.replacen("steps.step_0.output", "params.x", 1);
    for _ in 0..3 {
        let t = std::time::Instant::now();
        let p = kapell_model::parse("x", &s);
        println!(
            "{} bytes {} diags {:?}",
            s.len(),
            p.diagnostics.len(),
            t.elapsed()
        );
    }
    let p = kapell_model::parse("x", &s);
    if let Some(d) = p.diagnostics.first() {
        println!("{d:?}")
    }
    let t = std::time::Instant::now();
    let j = serde_json::to_string(&p.spec).unwrap();
    println!("ser {} {:?}", j.len(), t.elapsed());
    let t = std::time::Instant::now();
    let p = kapell_model::parse("x", &s.replace("steps.step_", "steps.stip_"));
    println!("all unknown {} {:?}", p.diagnostics.len(), t.elapsed());
    let bomb =
        std::fs::read_to_string("/work/main/crates/model/tests/bad/alias_bomb.yaml").unwrap();
    let t = std::time::Instant::now();
    kapell_model::parse("x", &bomb);
    println!("bomb {:?}", t.elapsed());
}
